"""Label waiting's settings: which kinds of feedback are waited for, how long, and what is kept in memory."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from prerank.config.asof import Duration, milliseconds
from prerank.config.strict import Strict


class Wait(Strict):
    """One kind of feedback."""

    window: Duration = Field(description="how long after the impression it counts")


class Waiting(Strict):
    """`kinds: {click: 10m}` is short for `{click: {window: 10m}}`. All spans are of event time."""

    kinds: dict[str, Wait] = Field(min_length=1, description="feedback that is waited for, by kind; these are the rows' labels")
    lateness: Duration = Field("1m", description="how far out of order events may come: the watermark is the latest time seen, less this")
    remember: Duration | None = Field(None, description="how long rows that went out are known, for late and repeated events; default: "
                                      "the longest window")  # fmt: skip
    skew: Duration = Field("5m", description="how far clocks may differ: an event further ahead of its arrival is refused")
    keep: int = Field(1_000_000, ge=1, description="most impressions in memory, and most feedback without an impression")
    early: bool = Field(False, description="a row goes out as soon as every kind came: positives sooner than the others")
    corrections: bool = Field(False, description="late feedback makes the row go out again, corrected; takes the memory of `remember`")

    @field_validator("kinds", mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        return {k: {"window": v} if isinstance(v, str) else v for k, v in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _some_time(self) -> Waiting:
        for kind, wait in self.kinds.items():
            if milliseconds(wait.window) == 0:
                raise ValueError(f"kinds.{kind}.window: must be longer than nothing; got '{wait.window}'")
        return self

    @property
    def windows(self) -> dict[str, int]:
        """Milliseconds by kind."""
        return {kind: milliseconds(wait.window) for kind, wait in self.kinds.items()}
