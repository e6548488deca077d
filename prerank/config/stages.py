"""How a log tells how far each candidate came, what a second opinion says of it, and which candidates make a list."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from prerank.config.strict import Strict

StageName = Literal["impression", "ranking", "pre_ranking", "recall", "random"]  # batch.Stage, in its order


class StageColumn(Strict):
    """The column that holds each row's stage, and what its values mean."""

    column: str = Field(description="log column")
    values: dict[str, StageName] | None = Field(
        None, description="the log's values -> impression, ranking, pre_ranking, recall, random; default: these names, or 0 to 4"
    )

    @field_validator("values", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        """YAML reads `{0: impression}` with a number for a key."""
        return {str(k): v for k, v in value.items()} if isinstance(value, dict) else value


class Ecpm(Strict):
    """Expected revenue: the bid times what it pays for."""

    bid: str = Field(description="log column, not negative")
    of: str = Field(description="log column: what is paid for (is_click), or its probability")


class Teacher(Strict):
    """A soft label: a score that another model gave. Missing (null, NaN) where it gave none. Exactly one of the three ways."""

    column: str | None = Field(None, description="a numeric column as it is")
    weighted: dict[str, float] | None = Field(None, description="weighted sum of columns; missing where one of them is")
    ecpm: Ecpm | None = Field(None, description="a bid times a column: {bid: bid, of: pctr}")

    @model_validator(mode="after")
    def _one_way(self) -> Teacher:
        given = [n for n in ("column", "weighted", "ecpm") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"a teacher needs exactly one of column, weighted, ecpm; got {', '.join(given) or 'none'}")
        return self

    def columns(self) -> list[str]:
        """The log columns it names."""
        if self.ecpm:
            return [self.ecpm.bid, self.ecpm.of]
        return [self.column] if self.column else list(self.weighted or ())


class Take(Strict):
    """How many candidates of a stage a list takes: all of them, or so many drawn at random.

    Written as `all`, as a number (a count), or as a mapping.
    """

    count: int | None = Field(None, ge=1, description="at most so many a list")
    ratio: float | None = Field(None, gt=0, description="so many for each of the list's impressions")
    popularity: float = Field(0.0, ge=0, le=2, description="random: drawn by (train rows of the item) ** this; 0: all alike")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        if value == "all":
            return {}
        return {"count": value} if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _one_way(self) -> Take:
        if self.count is not None and self.ratio is not None:
            raise ValueError(f"takes a count or a ratio, not both; got {self.count} and {self.ratio}")
        return self

    @property
    def all(self) -> bool:
        """Every candidate of the stage."""
        return self.count is None and self.ratio is None

    def __str__(self) -> str:
        many = "all" if self.all else str(self.count) if self.count is not None else f"{self.ratio:g} an impression"
        return f"{many} by popularity^{self.popularity:g}" if self.popularity else many


def _impressions() -> dict[StageName, Take]:
    return {"impression": Take()}


class Lists(Strict):
    """Which candidates make a list."""

    by: Literal["request", "user"] = Field("request", description="a list holds the candidates of a request, or all of a user's")
    max_length: int = Field(512, ge=1, description="longer lists lose candidates, those of the earliest stages first")
    stages: dict[StageName, Take] = Field(
        default_factory=_impressions,
        description="stage -> `all`, a count, or {count | ratio, popularity}; other stages are left out; random items are drawn, not read",
    )
    filter: bool = Field(
        True, description="without drawn items of the user's train rows, and candidates that it liked there: false negatives"
    )

    @model_validator(mode="after")
    def _sensible(self) -> Lists:
        if not self.stages:
            raise ValueError("stages: a list needs candidates of at least one stage; got none")
        for stage, take in self.stages.items():
            if take.popularity and stage != "random":
                raise ValueError(f"stages.{stage}: popularity belongs to random, whose items are drawn; got {take.popularity:g}")
        return self

    def pool(self) -> str:
        """Its candidates in words, for tables: 'impression all, random 100'."""
        return ", ".join(f"{stage} {take}" for stage, take in self.stages.items())


class Evaluation(Lists):
    """The candidate pool in which recall@K and ndcg@K are measured; AUC and logloss stay on impressions."""

    max_length: int = Field(100_000, ge=1, description="longer lists lose candidates, those of the earliest stages first")
    seed: int = Field(0, ge=0, lt=2**32, description="of what is drawn: the same pool for every model and every epoch")
    at: tuple[int, ...] = Field((20, 100), min_length=1, description="the K")

    @field_validator("at", mode="after")
    @classmethod
    def _positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 1 or len(set(value)) < len(value):
            raise ValueError(f"must be different numbers from 1 on; got {list(value)}")
        return value


def monitored(value: str) -> tuple[str, int] | None:
    """'recall@100' -> ('recall', 100); None for a metric of rows (auc, gauc, logloss). Raises ValueError for anything else."""
    name, at, k = value.partition("@")
    if not at and name in ("auc", "gauc", "logloss"):
        return None
    if name in ("recall", "ndcg") and k.isdecimal() and int(k) >= 1:
        return name, int(k)
    raise ValueError(f"must be auc, gauc, logloss, recall@K or ndcg@K; got '{value}'")


def unset(value: Any) -> bool:
    """True for what was not set: left out of fingerprints, so that those of before the key stay what they were."""
    return value is None or value == ()
