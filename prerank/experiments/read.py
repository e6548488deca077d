"""What was shown under which arm, one row an impression: a Parquet or CSV file, or the log that label waiting writes (rows.py).

    seen = read("rows.parquet", Columns(arm="arm", user="user_id", rates=("click",), values=("revenue",), latency="milliseconds"))
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prerank.data import DataError, Table
from prerank.data.values import numbers
from prerank.experiments.rows import frame, is_log


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column holds what; None: the file does not say.

    rates, values   what is averaged over rows: labels of 0 and 1, and amounts (told per 1,000 rows, as eCPM is)
    request         rows of one request have one latency
    time            ms since 1970, or a date
    experiment      rows of another experiment than `name` are left out
    """

    arm: str = "arm"
    user: str = "user_id"
    rates: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    latency: str | None = None
    request: str | None = None
    time: str | None = None
    experiment: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """n rows of users that saw one arm only.

    arms      names, in order;  arm   int64 [n]: which
    user      int64 [n], 0 .. users - 1
    rates, values   {column: float64 [n]};   latency   float64 [n] of the first row of each request, else NaN; None: not told
    ts        int64 [n] ms, or None
    said      what was left out
    """

    arms: tuple[str, ...]
    arm: NDArray[np.int64]
    user: NDArray[np.int64]
    rates: dict[str, NDArray[np.float64]]
    values: dict[str, NDArray[np.float64]]
    latency: NDArray[np.float64] | None
    ts: NDArray[np.int64] | None
    said: tuple[str, ...]


def read(path: str | Path, columns: Columns) -> Seen:
    """Raises DataError: no such column, a rate that is neither 0 nor 1, fewer than two arms.

    path   of a file, or a log's address
    """
    if is_log(path):
        wanted = (columns.arm, columns.user, *columns.rates, *columns.values, columns.latency, columns.request, columns.time)
        rows, said = frame(str(path), list(dict.fromkeys(c for c in wanted if c)), columns.name)
        if columns.latency and rows[columns.latency].null_count() == len(rows):  # whoever wrote the events does not know it
            columns = replace(columns, latency=None)
        return _seen(rows, replace(columns, experiment=None, name=None), str(path), said)
    table = Table(path, "experiment's rows")
    named = {"--arm": columns.arm, "--user": columns.user, **{f"--rate {c}": c for c in columns.rates},
             **{f"--value {c}": c for c in columns.values}, "--latency": columns.latency, "--request": columns.request,
             "--time": columns.time, "--experiment-column": columns.experiment}  # fmt: skip
    table.require({column: option for option, column in named.items() if column})
    rows = table.read({c: table.typed(c) for c in dict.fromkeys(c for c in named.values() if c)})
    return _seen(rows, columns, str(path), [])


def _seen(frame: pl.DataFrame, columns: Columns, path: str, said: list[str]) -> Seen:
    def keep(where: pl.Expr, why: str) -> None:
        nonlocal frame
        kept = frame.filter(where)
        if len(kept) < len(frame):
            said.append(f"{len(frame) - len(kept):,} of {len(frame):,} rows {why}: left out")
        frame = kept

    if columns.experiment and columns.name:
        keep(pl.col(columns.experiment).cast(pl.String) == columns.name, f"are not of experiment '{columns.name}'")
    keep(pl.col(columns.arm).is_not_null() & pl.col(columns.user).is_not_null(), "name no arm or no user")
    arms_of = frame.group_by(columns.user).agg(pl.col(columns.arm).n_unique().alias("arms"))
    both = arms_of.filter(pl.col("arms") > 1)[columns.user]
    if len(both):
        said.append(f"{len(both):,} of {len(arms_of):,} users saw more than one arm")
        keep(~pl.col(columns.user).is_in(both.implode()), "are of users that saw more than one arm")
    arm = frame[columns.arm].cast(pl.String)
    arms = tuple(sorted(arm.unique().to_list()))
    if len(arms) < 2:
        found = ", ".join(arms) or "none"
        raise DataError(f"experiment's rows '{path}': column '{columns.arm}' must name at least two arms; found {found}")
    rates = {c: numbers(frame[c].cast(pl.Float64), f"rate '{c}'") for c in columns.rates}
    for name, labels in rates.items():
        wrong = ~np.isin(labels, (0.0, 1.0))
        if wrong.any():
            first = labels[int(wrong.argmax())]
            raise DataError(f"rate '{name}': must be 0 or 1; {int(wrong.sum()):,} rows are not, the first is {first:g}; is it a --value?")
    values = {c: numbers(frame[c].cast(pl.Float64), f"value '{c}'") for c in columns.values}
    for name, amounts in values.items():
        if not np.isfinite(amounts).all():
            raise DataError(f"value '{name}': must be finite numbers; {int((~np.isfinite(amounts)).sum()):,} rows are not")
    return Seen(arms, _codes(arm, arms), frame[columns.user].rank("dense").to_numpy().astype(np.int64) - 1, rates, values,
                _latency(frame, columns), _times(frame, columns), tuple(said))  # fmt: skip


def _codes(arm: pl.Series, arms: tuple[str, ...]) -> NDArray[np.int64]:
    return arm.replace_strict(list(arms), list(range(len(arms))), return_dtype=pl.Int64).to_numpy()


def _latency(frame: pl.DataFrame, columns: Columns) -> NDArray[np.float64] | None:
    if columns.latency is None:
        return None
    found = numbers(frame[columns.latency].cast(pl.Float64), f"latency '{columns.latency}'").copy()
    if columns.request:
        found[~frame[columns.request].is_first_distinct().to_numpy()] = np.nan
    return found


def _times(frame: pl.DataFrame, columns: Columns) -> NDArray[np.int64] | None:
    if columns.time is None:
        return None
    found = frame[columns.time]
    if found.dtype.is_temporal():
        found = found.cast(pl.Datetime("ms"))
    elif found.dtype.is_float() and (found == found.floor()).all():  # what a CSV file's integers are read as
        found = found.cast(pl.Int64)
    if found.null_count() or not (found.dtype.is_integer() or found.dtype.is_temporal()):
        raise DataError(f"time '{columns.time}': must be integer milliseconds or a date in every row; it is {found.dtype}")
    return found.cast(pl.Int64).to_numpy()
