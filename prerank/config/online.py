"""Learning from a stream of rows: where they come from, what is kept, and where generations go."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from prerank.config.asof import Duration
from prerank.config.strict import Strict


class Publish(Strict):
    folder: str = Field(description="of generations, which servers follow")
    every: Duration = Field("5s", description="between two generations, while rows come")
    deltas: int = Field(20, ge=0, description="between two whole generations: what changed alone; 0: every one is whole")
    keep: int = Field(3, ge=1, description="generations that stay")
    dtype: Literal["fp32", "bf16", "int8"] = Field("fp32", description="how item rows are stored: fp32, bf16, int8")


class Drift(Strict):
    slack: float = Field(0.05, ge=0, description="deviations of the loss that are no drift")
    limit: float = Field(50.0, gt=0, description="summed deviations above which the alarm is raised")


class Online(Strict):
    """Section `online` of a run: the same data, model and training sections, fed by a log of training rows."""

    rows: str = Field(description="address of the log of rows that label waiting writes: sqlite:///rows.db, redis://.., kafka://..")
    partition: int = Field(0, ge=0, description="of that log; a trainer has one")
    start: str | None = Field(None, description="folder of a run whose weights are the first ones; default: drawn anew")
    wait: Duration = Field("0.5s", description="a batch that is not full is learned from after so long")
    checkpoint: Duration = Field("10s", description="between checkpoints: so much is learned again after a crash, never twice")
    window: int = Field(20_000, ge=2, description="rows of the running metrics")
    publish: Publish | None = Field(None, description="where generations are written; default: nowhere")
    drift: Drift = Drift()
