"""The time of an event in milliseconds since 1970, from integers (s, ms, us or ns told by their size), dates or text."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prerank.data.errors import DataError
from prerank.data.values import Place, as_type, not_null

# (first size that is no longer this unit, milliseconds of one unit): seconds reach the year 5138, milliseconds begin in 1973
_UNITS = ((1e11, 1000.0), (1e14, 1.0), (1e17, 1e-3), (float("inf"), 1e-6))


class Timestamps:
    """Reads one column; the unit of integers is told once, from the first batch, and then holds for all.

    zone   zone of dates that name none, and of the moments written in the settings
    """

    def __init__(self, column: str, zone: str) -> None:
        self.column, self.zone = column, zone
        self._scale: float | None = None
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise DataError(f"split.timezone: '{zone}' is no time zone, e.g. 'Asia/Shanghai'") from None

    def read(self, values: pl.Series, place: Place) -> NDArray[np.int64]:
        """[n] -> int64 [n] ms. Raises DataError for a missing value or one that is no time."""
        what = f"time '{self.column}'"
        not_null(values, what, place)
        if values.dtype == pl.String:
            values = _parsed(values, what, place)
        if values.dtype in (pl.Date, pl.Datetime):
            moments = values.cast(pl.Datetime("ms")) if values.dtype == pl.Date else values
            if getattr(moments.dtype, "time_zone", None) is None:
                moments = moments.dt.replace_time_zone(self.zone, ambiguous="earliest", non_existent="null")
            return not_null(moments, what, place).dt.epoch("ms").to_numpy()
        if values.dtype.is_integer():
            integers = not_null(as_type(values, pl.Int64(), what, place), what, place).to_numpy()
            scale = self._unit(integers)
            return integers * int(scale) if scale >= 1 else integers // round(1 / scale)
        numbers = not_null(as_type(values, pl.Float64(), what, place), what, place).to_numpy()
        return np.floor(numbers * self._unit(numbers)).astype(np.int64)

    def moment(self, text: str, what: str) -> int:
        """A moment of the settings ('2022-05-06', '2022-05-06 12:00', with an offset or in the zone) in ms."""
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            raise DataError(f"{what}: must be a moment like '2022-05-06 12:00' or a fraction, got '{text}'") from None
        aware = found if found.tzinfo else found.replace(tzinfo=ZoneInfo(self.zone))
        return round(aware.timestamp() * 1000)

    def _unit(self, values: NDArray[np.int64] | NDArray[np.float64]) -> float:
        """Milliseconds of one unit."""
        if self._scale is None:
            size = float(np.abs(values).max(initial=0))
            self._scale = next(scale for limit, scale in _UNITS if size < limit)
        return self._scale


def _parsed(values: pl.Series, what: str, place: Place) -> pl.Series:
    """Dates from text, or the text itself cast to numbers when it holds integers."""
    try:
        found = values.str.to_datetime(strict=False)
    except pl.exceptions.PolarsError:
        return as_type(values, pl.Int64(), what, place)
    if found.null_count():
        first = int(found.is_null().arg_max() or 0)
        raise DataError(f"{what}: {found.null_count()} value(s) are no time, first at {place(first)}: {values[first]!r}")
    return found
