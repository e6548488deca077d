"""A Parquet or CSV file of scored requests: one row a candidate, the columns named by whoever asks.

    read("scored.parquet", Columns(request="request_id", score="pre_score", ranking="rank_score"))
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prerank.batch import Stage
from prerank.consistency.scored import Scored, clean, head, stages
from prerank.data import DataError, Table
from prerank.data.values import as_type, not_null
from prerank.metrics import sigmoid

Logits = Literal["none", "score", "ranking", "both"]


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column holds what; None: the file does not say.

    score, against   of the pre-ranker, and of another one
    ranking          of the ranking model, empty where it gave none
    """

    request: str = "request_id"
    score: str = "score"
    ranking: str = "teacher_score"
    against: str | None = None
    item: str | None = None
    stage: str | None = None
    bid: str | None = None
    truth: str | None = None
    user_events: str | None = None
    item_events: str | None = None


def read(path: str | Path, columns: Columns, *, logits: Logits = "none") -> Scored:
    """Candidates of a file, cleaned.

    logits   which scores are logits: regret and eCPM read their sigmoid; `score` is said of both pre-rankers

    Raises DataError naming every column that the file lacks, or the row of a value that cannot be read.
    """
    table = Table(path, "scored requests")
    named = {f.name: c for f in fields(columns) if (c := getattr(columns, f.name)) is not None}
    table.require({column: f"--{name.replace('_', '-')}" for name, column in named.items()})
    given = table.read({column: _type(name) for name, column in named.items()})
    found = {name: given[column] for name, column in named.items()}
    counts = {name: _counts(found[name], f"column '{named[name]}'") for name in ("user_events", "item_events") if name in found}
    item = _codes(found["item"], f"column '{named['item']}'") if "item" in found else None
    scores = {name: _numbers(found[name]) for name in ("score", "ranking", "against", "bid", "truth") if name in found}
    s, t, against = scores["score"], scores["ranking"], scores.get("against")
    pre, ranked = logits in ("score", "both"), logits in ("ranking", "both")
    return clean(Scored(
        request=_codes(found["request"], f"column '{named['request']}'"), s=s, t=t, against=against, item=item,
        s_worth=sigmoid(s) if pre else None, t_worth=sigmoid(t) if ranked else None,
        against_worth=sigmoid(against) if pre and against is not None else None,
        bid=scores.get("bid"), truth=scores.get("truth"),
        stage=_stages(found["stage"], f"column '{named['stage']}'") if "stage" in found else None,
        head=head(item, counts["item_events"]) if item is not None and "item_events" in counts else None,
        names=(columns.score, columns.ranking, columns.against or ""),
        user_events=counts.get("user_events"), item_events=counts.get("item_events"),
    ))  # fmt: skip


def _type(name: str) -> pl.DataType | None:
    if name in ("request", "item", "stage"):
        return None
    return pl.Int64() if name.endswith("_events") else pl.Float64()


def _numbers(values: pl.Series) -> NDArray[np.float64]:
    return values.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _counts(values: pl.Series, what: str) -> NDArray[np.int64]:
    found = not_null(values, what).to_numpy()
    if (found < 0).any():
        row = int((found < 0).argmax())
        raise DataError(f"{what}: a number of events must not be negative; got {found[row]} at row {row + 1}")
    return found


def _codes(values: pl.Series, what: str) -> NDArray[np.int64]:
    """Equal integers for equal values, of any type."""
    known = not_null(values, what)
    if known.dtype.is_integer():
        return known.cast(pl.Int64).to_numpy()
    return known.cast(pl.String).cast(pl.Categorical).to_physical().cast(pl.Int64).to_numpy()


def _stages(values: pl.Series, what: str) -> NDArray[np.int64]:
    """Names of batch.Stage in any case, or their numbers."""
    known = not_null(values, what)
    if known.dtype.is_integer():
        return stages(known.cast(pl.Int64).to_numpy(), what)
    text = known.cast(pl.String).str.to_lowercase()
    numbers = {**{s.name.lower(): int(s) for s in Stage}, **{str(int(s)): int(s) for s in Stage}}
    found = text.replace_strict(numbers, default=-1, return_dtype=pl.Int64).to_numpy()
    if (found < 0).any():
        row = int((found < 0).argmax())
        raise DataError(f"{what}: must be one of {', '.join(s.name.lower() for s in Stage)}, or 0 to {max(Stage):d}; "
                        f"got '{values[row]}' at row {row + 1}")  # fmt: skip
    return as_type(pl.Series(found), pl.Int64(), what).to_numpy()
