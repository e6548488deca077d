"""An experiment's rows from the log that label waiting writes: what the server logged, with the feedback that came.

    seen = read("sqlite:///rows.db", Columns(user="user", rates=("click",), values=("click*bid",), latency="latency", request="request"))

Columns of such a log: `arm`, `experiment`, `user`, `request`, `ts`, `score`, `bid`, `latency`, `position`, `generation`, a column for
each kind of feedback that was waited for, and a kind times the bid (`click*bid`). A row that went out again, corrected, counts as it was
corrected. A request of nobody who is known by an id was dealt to its arm by itself, so that it is a user of its own. What was forced
into an arm for testing is of no experiment, and left out. All of it lies in memory, some 300 bytes a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from prerank.config import nearest
from prerank.data import DataError
from prerank.stream import Correction, LogError, Row, Rows, open_log

LIMIT = 10_000  # entries read at once
OWN = {"arm": pl.String, "experiment": pl.String, "user": pl.String, "request": pl.String, "ts": pl.Int64, "score": pl.Float64,
       "bid": pl.Float64, "latency": pl.Float64, "position": pl.Int64, "generation": pl.Int64}  # fmt: skip
TIMES_BID = "*bid"


def is_log(address: object) -> bool:
    """Whether it is a log's address, and not a file's name."""
    return "://" in str(address)


def frame(address: str, columns: list[str], experiment: str | None) -> tuple[pl.DataFrame, list[str]]:
    """The columns of an experiment's rows, and what was left out. Raises DataError: no such log, column or experiment, or several.

    experiment   None: the only one that the log has
    """
    found: dict[Any, tuple[Any, ...]] = {}
    kinds: dict[str, None] = {}
    of_none, experiments = 0, dict[str, int]()
    for row in _rows(address):
        kinds.update(dict.fromkeys(row.labels))
        shown = row.impression
        if shown.experiment is None or shown.arm is None:
            of_none += not isinstance(row, Correction)
            continue
        if not isinstance(row, Correction):
            experiments[shown.experiment] = experiments.get(shown.experiment, 0) + 1
        if experiment is None or shown.experiment == experiment:
            found[shown.request, shown.item] = tuple(_value(row, name, address, kinds) for name in columns)
    if experiment is None and len(experiments) > 1:
        raise DataError(f"log '{address}': has rows of {len(experiments)} experiments, {', '.join(sorted(experiments))}; choose one")
    if not found:
        there = f"it has {', '.join(sorted(experiments))}" if experiments else "it has none"
        raise DataError(f"log '{address}': has no row of {f'experiment {experiment!r}' if experiment else 'an experiment'}; {there}")
    said = [f"{of_none:,} rows are of no experiment: left out"] if of_none else []
    others = sum(n for name, n in experiments.items() if experiment not in (None, name))
    said += [f"{others:,} rows are not of experiment '{experiment}': left out"] if others else []
    types = {name: OWN.get(name, pl.Float64) for name in columns}
    return pl.DataFrame(list(found.values()), types, orient="row"), said


def _rows(address: str) -> Iterator[Row | Correction]:
    """All of the log, partition by partition."""
    try:
        log = open_log(address, create=False)
        try:
            for partition in range(log.partitions):
                rows, end = Rows(log, partition), log.end(partition)
                while rows.position.offset < end:
                    before = rows.position.offset
                    yield from rows.take(LIMIT)
                    if rows.position.offset == before:
                        break
        finally:
            log.close()
    except LogError as error:
        raise DataError(str(error)) from None


def _value(row: Row | Correction, name: str, address: str, kinds: dict[str, None]) -> Any:
    """A column of a row. Raises DataError for one that there is not."""
    shown, labels = row.impression, row.labels
    if name == "user":
        return f"request {shown.request}" if shown.user is None else f"user {shown.user}"
    if name == "request":
        return str(shown.request)
    if name in labels:
        return labels[name]
    if name in OWN:
        return getattr(shown, name)
    kind = name.removesuffix(TIMES_BID)
    if kind != name and kind in labels:
        return None if shown.bid is None else labels[kind] * shown.bid
    valid = [*OWN, *kinds, *(f"{kind}{TIMES_BID}" for kind in kinds)]
    raise DataError(f"log '{address}': has no column '{name}'{nearest(name, valid)}")
