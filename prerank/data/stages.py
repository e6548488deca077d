"""What a cascade's log says of each row beside its labels: how far it came, a teacher's score, and its bid.

stage     int8 [n], numbers of batch.Stage     from names, numbers, or the log's own values (data.stage.values)
teacher   float32 [n], NaN where missing       a column, a weighted sum, or bid x column
bid       float32 [n], 0 where missing         never negative
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prerank.batch import Stage
from prerank.config import StageColumn, Teacher, nearest
from prerank.data.errors import DataError
from prerank.data.values import Place, as_type, not_null, row

NAMES: dict[str, Stage] = {stage.name.lower(): stage for stage in Stage}
NUMBERS: dict[str, Stage] = {str(int(stage)): stage for stage in Stage}


class StageReader:
    """Values of one column -> stages.

    column   whose values they are
    values   what a value means; `names` also lets the names of the stages and their numbers mean them
    """

    def __init__(self, column: str, values: Mapping[str, Stage]) -> None:
        self.column, self.values = column, dict(values)

    @classmethod
    def of_log(cls, setting: StageColumn) -> StageReader:
        """The log's own values where they are given, else names and numbers."""
        given = {value: NAMES[name] for value, name in (setting.values or {}).items()}
        return cls(setting.column, given or {**NAMES, **NUMBERS})

    @classmethod
    def of_candidates(cls, setting: StageColumn | None, columns: Mapping[str, pl.DataType]) -> StageReader:
        """The log's column and values, where the table of candidates has them, and always `stage`, names and numbers."""
        column = setting.column if setting is not None and setting.column in columns else "stage"
        own = cls.of_log(setting).values if setting is not None else {}
        return cls(column, {**NAMES, **NUMBERS, **own})

    def read(self, values: pl.Series, place: Place = row) -> NDArray[np.int8]:
        """[n] -> int8 [n]. Raises DataError for a value that is missing or unknown."""
        what = f"stage '{self.column}'"
        text = _text(not_null(values, what, place))
        distinct = text.unique(maintain_order=True)
        for value in distinct:
            if value not in self.values:
                first = int((text == value).arg_max() or 0)
                raise DataError(f"{what}: unknown value, first at {place(first)}: {value!r:.60}{nearest(value, self.values)}")
        numbers = pl.Series([int(self.values[value]) for value in distinct], dtype=pl.Int8)
        return text.replace_strict(distinct, numbers, return_dtype=pl.Int8).to_numpy()


def teacher(setting: Teacher, frame: pl.DataFrame, place: Place = row) -> NDArray[np.float32]:
    """The teacher's scores of a frame that has its columns; NaN where there is none.  # [n]

    Raises DataError for a score that is no number, and for a negative bid.
    """
    columns = {c: _floats(frame[c], f"teacher, column '{c}'", place) for c in setting.columns()}
    if setting.ecpm is not None:
        found = not_negative(columns[setting.ecpm.bid], f"teacher, bid '{setting.ecpm.bid}'", place) * columns[setting.ecpm.of]
    elif setting.weighted is not None:
        found = np.sum([weight * columns[c] for c, weight in setting.weighted.items()], axis=0)
    else:
        found = columns[setting.column or ""]
    wrong = np.flatnonzero(np.isinf(found))
    if len(wrong):
        raise DataError(f"teacher: {len(wrong)} scores are infinite, first at {place(int(wrong[0]))}; a missing score is null or NaN")
    return found.astype(np.float32)


def bid(values: pl.Series, place: Place = row) -> NDArray[np.float32]:
    """Bids [n], 0 where missing. Raises DataError at a negative one."""
    what = f"bid '{values.name}'"
    return np.nan_to_num(not_negative(_floats(values, what, place), what, place), nan=0.0).astype(np.float32)


def not_negative(values: NDArray[np.float64], what: str, place: Place) -> NDArray[np.float64]:
    """The same values. Raises DataError when one is negative or infinite; NaN passes."""
    wrong = np.flatnonzero((values < 0) | np.isinf(values))
    if len(wrong):
        count = "1 is" if len(wrong) == 1 else f"{len(wrong)} are"
        raise DataError(f"{what}: must be 0 or more; {count} not, first at {place(int(wrong[0]))}: {values[wrong[0]]:g}")
    return values


def _floats(values: pl.Series, what: str, place: Place) -> NDArray[np.float64]:
    return as_type(values, pl.Float64(), what, place).fill_null(float("nan")).to_numpy()


def _text(values: pl.Series) -> pl.Series:
    """Values as the settings write them: 0 and not 0.0, names in lower case as they stand."""
    if values.dtype.is_float():
        values = as_type(values, pl.Int64(), f"stage '{values.name}'")
    return values.cast(pl.String)
