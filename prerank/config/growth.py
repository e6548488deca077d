"""Vocabularies that grow while a stream goes by, in rows that are fixed: what is asked for, in which words."""

from __future__ import annotations

from pydantic import Field

from prerank.config.asof import Duration
from prerank.config.strict import Strict


class Growth(Strict):
    """A feature's vocabulary takes new values in and lets unused ones go; its tables have `capacity` rows from the start."""

    capacity: int = Field(ge=4, le=2**31 - 1, description="rows of the tables, the three reserved ones included: memory is bounded by it")
    admit_after: int = Field(2, ge=1, description="a new value gets a row when it is seen for the n-th time; until then it is 'unknown'")
    expire_after: Duration = Field("30d", description="event time after its last use at which a value loses its row: 12h, 30d")
    candidates: int = Field(1 << 20, ge=1, description="new values whose sightings are counted at a time; older counts are forgotten")
