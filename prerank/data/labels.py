"""What happened, as numbers to learn: a condition, a column, a weighted sum, the highest level reached, or a bid times a column.

Conditions are SQL over the log's columns (`rating > 3`, `rating == 3`, `is_click = 1 AND play_ms > 7000`);
polars parses and evaluates them. `impressed` is a column that every log has, unless it has one of that name itself.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prerank.batch import Stage
from prerank.config import Label
from prerank.data.errors import DataError
from prerank.data.stages import not_negative
from prerank.data.values import Place, as_type, row

IMPRESSED = "impressed"
Stages = NDArray[np.int8]


class Condition:
    """A condition over columns of the log: `matches(frame)` -> bool [n], where null is null."""

    def __init__(self, text: str, what: str) -> None:
        """Raises DataError when the text is no SQL expression."""
        self.text, self.what = text, what
        try:
            self._expression = pl.sql_expr(text)
            self.columns = list(dict.fromkeys(self._expression.meta.root_names()))
        except (pl.exceptions.PolarsError, TypeError) as error:
            raise DataError(f"{what}: '{text}' is no condition: {str(error).splitlines()[0]}") from None
        if not self.columns:
            raise DataError(f"{what}: '{text}' names no column")

    def matches(self, frame: pl.DataFrame) -> pl.Series:
        """Boolean [n]. Raises DataError when the columns' types do not fit the condition."""
        try:
            found = frame.select(self._expression.alias("match")).to_series()
        except pl.exceptions.PolarsError as error:
            types = ", ".join(f"{c} is {frame[c].dtype}" for c in self.columns)
            raise DataError(f"{self.what}: '{self.text}' cannot be decided ({types}): {str(error).splitlines()[0]}") from None
        if found.dtype != pl.Boolean or len(found) != len(frame):
            raise DataError(f"{self.what}: '{self.text}' must be true or false for each row, it is {found.dtype}")
        return found


class Source(Protocol):
    """What labels ask of a log: its columns, and what is wrong with naming one."""

    columns: Any

    def problem(self, column: str, what: str) -> str | None: ...


class Labels:
    """All labels of the settings, computed batch by batch.

    columns   the log columns they need
    """

    def __init__(self, settings: dict[str, Label], log: Source) -> None:
        """Raises DataError naming every column that the log does not have."""
        self.settings = settings
        self._conditions = {n: Condition(s.rule, f"label '{n}'") for n, s in settings.items() if s.rule is not None}
        problems = []
        self.columns: list[str] = []
        for name, setting in settings.items():
            wanted = self._conditions[name].columns if name in self._conditions else setting.columns()
            if setting.rule is None and IMPRESSED not in log.columns:
                wanted = [c for c in wanted if c != IMPRESSED]
            problems += [p for c in wanted if (p := log.problem(c, f"label '{name}'"))]
            self.columns += [c for c in wanted if c not in self.columns]
        if problems:
            raise DataError("\n".join(problems))

    @property
    def conditions(self) -> list[str]:
        """The columns that conditions read: their own types matter."""
        return [column for condition in self._conditions.values() for column in condition.columns]

    def compute(self, frame: pl.DataFrame, place: Place = row, stage: Stages | None = None) -> NDArray[np.float32]:
        """Frame with `columns`, n rows -> float32 [n, T]. Raises DataError naming the first row without a value, or with a negative bid.

        stage   [n], None: all are impressions; a candidate of another stage that has no value has 0
        """
        out = np.empty((len(frame), len(self.settings)), np.float32)
        impressed = np.ones(len(frame)) if stage is None else (stage == Stage.IMPRESSION).astype(np.float64)
        for t, (name, setting) in enumerate(self.settings.items()):
            values = self._one(name, setting, frame, impressed, place)
            values = np.where(np.isnan(values) & (impressed == 0), 0.0, values)
            bad = np.flatnonzero(~np.isfinite(values))
            if len(bad):
                count = "1 row has" if len(bad) == 1 else f"{len(bad)} rows have"
                raise DataError(f"label '{name}': {count} no value (missing, NaN or infinite), first at {place(int(bad[0]))}")
            out[:, t] = values
        return out

    def _one(self, name: str, setting: Label, frame: pl.DataFrame, impressed: NDArray[np.float64], place: Place) -> NDArray[np.float64]:
        if name in self._conditions:
            return _floats(self._conditions[name].matches(frame).cast(pl.Float64))
        columns = {
            c: _floats(as_type(frame[c], pl.Float64(), f"label '{name}', column '{c}'", place)) if c in frame.columns else impressed
            for c in setting.columns()
        }
        if setting.ecpm is not None:
            return not_negative(columns[setting.ecpm.bid], f"label '{name}', bid '{setting.ecpm.bid}'", place) * columns[setting.ecpm.of]
        if setting.weighted is not None:
            return np.sum([w * columns[c] for c, w in setting.weighted.items()], axis=0)
        if setting.levels is not None:
            reached = np.zeros(len(frame))
            for level, column in enumerate(setting.levels, start=1):
                reached = np.where(columns[column] > 0, level, reached) + np.where(np.isnan(columns[column]), np.nan, 0.0)
            return reached
        return columns[setting.column or ""]


class LabelCheck:
    """Remembers the range of train labels; at the end, a label that never changes is an error: nothing can be learned from it."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._low, self._high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
        self._rows = 0

    def update(self, labels: NDArray[np.float32]) -> None:
        """Train labels [n, T]."""
        if len(labels):
            self._low, self._high = np.minimum(self._low, labels.min(0)), np.maximum(self._high, labels.max(0))
            self._rows += len(labels)

    def get(self) -> None:
        """Raises DataError naming every label that is constant."""
        constant = [
            f"label '{n}': all {self._rows} train rows are {low:g}, a label needs two classes"
            for n, low, high in zip(self.names, self._low, self._high, strict=True)
            if low == high
        ]
        if constant:
            raise DataError("\n".join(constant))


def _floats(values: pl.Series) -> NDArray[np.float64]:
    return values.fill_null(float("nan")).to_numpy()
