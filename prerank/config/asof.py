"""Running statistics of the log: what is asked for, in which words."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator, model_validator

from prerank.config.strict import Strict

_UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}  # in ms
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)")


def milliseconds(duration: str) -> int:
    """A time span as written in settings -> ms.

    >>> milliseconds("30m"), milliseconds("1.5h")
    (1800000, 5400000)
    """
    found = _DURATION.fullmatch(duration)
    if not found:
        raise ValueError(f"a time span must be a number and s, m, h or d ('30m', '1.5h'); got '{duration}'")
    return round(float(found[1]) * _UNITS[found[2]])


def _span(value: str) -> str:
    milliseconds(value)
    return value


Duration = Annotated[str, AfterValidator(_span)]


class AsOf(Strict):
    """A statistic of a key's earlier impressions, as of the moment of each row: read before written.

    with a label    log odds of its smoothed mean;  without   log(1 + number of impressions);  since_last   log(1 + seconds since the last)

    Impressions of the same moment do not see one another. With a half-life every impression counts 2^(-age / half-life).
    """

    name: str = Field(min_length=1, description="a feature of kind numeric takes this as its column")
    by: tuple[str, ...] = Field(min_length=1, description="key columns of the log or of the tables: user_id, or [user_id, tab]")
    label: str | None = Field(None, description="whose mean; it lies in [0, 1]")
    half_life: Duration | None = Field(None, description="30m, 12h, 3d: older impressions count less; none: all count alike")
    since_last: bool = Field(False, description="time since the key's last impression")
    smoothing: float = Field(10.0, gt=0, allow_inf_nan=False, description="label: weight of the running mean of all impressions")
    bins: int | None = Field(None, ge=2, description="key columns that are numbers are cut into so many parts of equal frequency")

    @field_validator("by", mode="before")
    @classmethod
    def _one(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_kind(self) -> AsOf:
        if self.half_life is not None and milliseconds(self.half_life) == 0:
            raise ValueError(f"half_life: must be longer than nothing; got '{self.half_life}'")
        if self.since_last and (self.label is not None or self.half_life is not None):
            raise ValueError(f"since_last: takes neither label nor half_life; '{self.name}' has one")
        return self
