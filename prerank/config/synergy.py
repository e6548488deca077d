"""What CS3 (arXiv 2604.19269, 2026) adds to a two-tower: CAS, CTS, CMS, each of which may be left out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from prerank.config.model import Model
from prerank.config.strict import Strict

SideName = Literal["user", "item"]


def _sides(value: tuple[SideName, ...]) -> tuple[SideName, ...]:
    if len(set(value)) < len(value):
        raise ValueError(f"must be different; got {', '.join(value)}")
    return value


class Cas(Strict):
    """Cycle-adaptive structure: layers of a tower run again on their re-weighted input."""

    sides: tuple[SideName, ...] = Field(("user",), min_length=1, description="towers whose layers are replaced")
    cycles: int = Field(1, ge=0, le=3, description="times that a layer runs again; 0: the plain layer")
    skip_input: bool = Field(True, description="each tower's first layer stays as it is")
    detach: bool = Field(False, description="no gradient through the first pass into the weights of the input")
    gate: Literal["after", "before"] = Field("after", description="weights come from after or before the first pass's activation")
    norm: Literal["second", "two"] = Field("second", description="BatchNorm: in the second pass only, or one of its own for each pass")

    check_sides = field_validator("sides")(_sides)


class Cache(Strict):
    """What CTS and CMS have in common: a cached vector an id, which its tower reads as one more field."""

    sides: tuple[SideName, ...] = Field(("user", "item"), min_length=1, description="towers that read a cached vector")
    decay: float = Field(0.8, gt=0, lt=1, description="of the old value when a new one is blended in")
    mode: Literal["ema", "mean"] = Field("ema", description="mean: of all that was ever written, instead of the decay")
    normalise: bool = Field(False, description="vectors are brought to length 1 before they are written")
    inputs: Literal["vector", "vector_count_age", "count_age"] = Field(
        "vector", description="what the tower is told: the vector, with count and age of the cache beside it, or these alone (the control)"
    )

    check_sides = field_validator("sides")(_sides)


class Cts(Cache):
    """Cross-tower synchronization: the cache holds the other tower's vectors of the id's positives."""

    negatives: bool = Field(False, description="a second cache, of what the id answered with 0")


class Cms(Cache):
    """Cascade-model sharing: the cache holds the ranking model's hidden vectors of the id's rows. They come in one of two ways."""

    ranker: Model | None = Field(None, description="a ranking model that is trained in step with the stream (`prerank replay`)")
    column: str | None = Field(None, description="a feature that holds them: kind vector, side context, field false")
    reads: tuple[str, ...] = Field((), description="features with field false that the ranking model alone reads")

    @field_validator("ranker", mode="before")
    @classmethod
    def _name_alone(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_way(self) -> Cms:
        given = [n for n in ("ranker", "column") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of ranker, column: where hidden vectors come from; got {', '.join(given) or 'none'}")
        if self.reads and self.ranker is None:
            raise ValueError("reads: belongs to ranker; vectors of a column were made elsewhere")
        return self


class Synergy(Strict):
    """CS3: any subset of the three."""

    cas: Cas | None = Field(None, description="layers that run again on a re-weighted input")
    cts: Cts | None = Field(None, description="a cached vector of the other tower's positives")
    cms: Cms | None = Field(None, description="a cached vector of the ranking model's hidden layer")
    store: str = Field("memory", description="where cached vectors lie: memory (in the model), lmdb:PATH, redis://HOST:PORT/DB")

    @field_validator("store")
    @classmethod
    def _known(cls, value: str) -> str:
        schemes = ("lmdb:", "redis://", "rediss://", "unix://")
        if value != "memory" and not any(value.startswith(s) and len(value) > len(s) for s in schemes):
            raise ValueError(f"must be memory, lmdb:PATH or redis://HOST:PORT/DB; got '{value}'")
        return value
