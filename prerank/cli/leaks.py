"""How well one column alone tells the label: where it tells too much, it usually is the label in disguise.

A numeric column is a score as it stands. A categorical one scores a row by its value's mean label,
taken from the other half of the rows: with its own label in the mean, an id that occurs once would
look perfect.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prerank.metrics import auc

SUSPICIOUS = 0.8  # an AUC that one honest column hardly ever reaches alone
_SEED = 7_392_064_517  # unlike any that a made-up log was drawn with: the halves must not know the labels
_FEW = 1000  # a numeric column with so few values is judged as categories too: a leak need not be monotone


def column_auc(values: pl.Series, positive: NDArray[np.bool_]) -> float:
    """AUC of the column's best simple reading, in either direction; 0.5 when it says nothing.

    values     [n] any type; lists are judged by their length and as whole values
    positive   [n] both classes must occur
    """
    if positive.all() or not positive.any():
        return 0.5
    scores = [_by_value(values, positive)]
    if isinstance(values.dtype, pl.List):
        scores = [values.list.len().fill_null(0).to_numpy().astype(np.float64), _by_value(values.hash(0), positive)]
    elif values.dtype.is_numeric() or values.dtype == pl.Boolean:
        numbers = values.cast(pl.Float64)
        scores = [numbers.fill_nan(None).fill_null(numbers.mean() or 0.0).to_numpy()]
        if values.n_unique() <= _FEW:
            scores.append(_by_value(values, positive))
    areas = [auc(np.nan_to_num(s), positive) for s in scores]
    return max(max(a, 1 - a) for a in areas)


def _by_value(values: pl.Series, positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean label of the row's value in the other half of the rows; the overall mean where it has none there."""
    half = np.random.default_rng(_SEED).random(len(values)) < 0.5
    frame = pl.DataFrame({"value": values, "label": positive.astype(np.float64), "half": half})
    other = frame.group_by("value", "half").agg(pl.col("label").mean().alias("mean")).with_columns(~pl.col("half"))
    joined = frame.join(other, on=["value", "half"], how="left", nulls_equal=True, maintain_order="left")
    return joined["mean"].fill_null(positive.mean()).to_numpy()


class Sample:
    """Every n-th row of a stream of frames, n doubling as it grows: at most `2 * size` rows are held, evenly spread."""

    def __init__(self, size: int = 200_000) -> None:
        self.size, self.stride, self.rows = size, 1, 0
        self._frames: list[pl.DataFrame] = []

    def add(self, frame: pl.DataFrame) -> None:
        """The next rows; columns that a later frame lacks are dropped from the sample."""
        first = -self.rows % self.stride
        self._frames.append(frame.gather_every(self.stride, first))
        self.rows += len(frame)
        while sum(map(len, self._frames)) > 2 * self.size:
            self.stride *= 2
            held = self.get()
            self._frames = [] if held is None else [held.gather_every(2)]

    def get(self) -> pl.DataFrame | None:
        """The rows held, None before the first."""
        if not self._frames:
            return None
        common = [c for c in self._frames[0].columns if all(c in f.columns for f in self._frames)]
        return pl.concat([f.select(common) for f in self._frames], how="vertical_relaxed")
