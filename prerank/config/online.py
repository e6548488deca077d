"""Learning from a stream of rows: where they come from, what is kept, and where generations go."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from prerank.config.asof import Duration, milliseconds
from prerank.config.strict import Strict


class Publish(Strict):
    folder: str = Field(description="of generations, which servers follow")
    to: str | None = Field(None, description="where they are copied for servers on other machines: redis://.., s3://.. (`serve --source`)")
    every: Duration = Field("5s", description="between two generations, while rows come")
    deltas: int = Field(20, ge=0, description="between two whole generations: what changed alone; 0: every one is whole")
    refresh: int = Field(
        10_000, ge=0, description="items that a delta encodes again, in turn, besides those that were learned from: vectors age"
    )
    keep: int = Field(3, ge=1, description="generations that stay")
    dtype: Literal["fp32", "bf16", "int8"] = Field("fp32", description="how item rows are stored: fp32, bf16, int8")


class Drift(Strict):
    slack: float = Field(0.05, ge=0, description="deviations of the loss that are no drift")
    limit: float = Field(50.0, gt=0, description="summed deviations above which the alarm is raised")


class Recall(Strict):
    """How far back memories (CTS, CMS) can be read, so that a row is learned with what was known when it was shown."""

    tick: Duration = Field("1m", description="what was known is told to this step; the newest step is never read")
    keep: Duration = Field("15m", description="how far back; at least the longest window and lateness of label waiting")

    @model_validator(mode="after")
    def _ticks(self) -> Recall:
        tick, keep = milliseconds(self.tick), milliseconds(self.keep)
        if not tick or keep % tick:
            raise ValueError(f"keep: must be a multiple of tick, which is above 0; got {self.keep} and {self.tick}")
        return self


class Online(Strict):
    """Section `online` of a run: the same data, model and training sections, fed by a log of training rows."""

    rows: str = Field(description="address of the log of rows that label waiting writes: sqlite:///rows.db, redis://.., kafka://..")
    partition: int | None = Field(None, ge=0, description="of that log; default: all, shared by the processes that learn together")
    start: str | None = Field(None, description="folder of a run whose weights are the first ones; default: drawn anew")
    wait: Duration = Field("0.5s", description="a batch that is not full is learned from after so long")
    checkpoint: Duration = Field("10s", description="between checkpoints: so much is learned again after a crash, never twice")
    ranking: Literal["beside", "apart"] = Field(
        "beside", description="the ranking model of CMS learns in the same process, or in one of its own (`--role ranking`)"
    )
    recall: Recall | None = Field(Recall(), description="memories are read as of a row's impression; null: as they are when it is learned")
    remember: int = Field(1_000_000, ge=1, description="users, and items, that the data does not have: so many are known, then the least "
                                                       "recently used are forgotten, and new when they come again")  # fmt: skip
    window: int = Field(20_000, ge=2, description="rows of the running metrics")
    publish: Publish | None = Field(None, description="where generations are written; default: nowhere")
    drift: Drift = Drift()
