"""Where the log is, what its columns mean, and how it is split."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from prerank.config.asof import AsOf, Duration
from prerank.config.errors import ConfigError, sentence
from prerank.config.growth import Growth
from prerank.config.stages import Ecpm, StageColumn, Teacher, unset
from prerank.config.strict import Strict
from prerank.schema import Feature, Schema


class Label(Strict):
    """How one label column is made from the log: exactly one of the five ways.

    `impressed` is a column that every log has: 1 for impressions, 0 for candidates of earlier stages (a log's own of that name wins).
    """

    rule: str | None = Field(None, description="a condition: 'rating > 3'; true is 1")
    column: str | None = Field(None, description="a numeric column as it is")
    weighted: dict[str, float] | None = Field(None, description="weighted sum of columns")
    levels: tuple[str, ...] | None = Field(None, description="ordered feedback, weakest first: highest level reached")
    ecpm: Ecpm | None = Field(None, exclude_if=unset, description="a bid times a column: {bid: bid, of: is_click}")

    @model_validator(mode="after")
    def _one_way(self) -> Label:
        given = [n for n in ("rule", "column", "weighted", "levels", "ecpm") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"a label needs exactly one of rule, column, weighted, levels, ecpm; got {', '.join(given) or 'none'}")
        return self

    def columns(self) -> list[str]:
        """The log columns it names directly (those of a rule are found when it is parsed)."""
        if self.column:
            return [self.column]
        if self.ecpm:
            return [self.ecpm.bid, self.ecpm.of]
        return list(self.weighted or self.levels or ())


class Split(Strict):
    """Which rows are for fitting, for choosing, and for the one last look."""

    kind: Literal["random", "time", "user", "request", "column"] = "random"
    column: str | None = Field(None, description="column: an integer column, 0 train, 1 validation, 2 test")
    validation: float | str = Field(
        0.1, description="random, user, request: a fraction of all rows (users, requests); time: first moment of validation, or a fraction"
    )
    test: float | str = Field(0.2, description="as validation; validation comes before test in time")
    seed: int = Field(0, ge=0, lt=2**32)
    timezone: str = Field("UTC", description="time: zone of the moments written above")

    @field_validator("validation", "test", mode="before")
    @classmethod
    def _moment(cls, value: object) -> object:
        """YAML reads an unquoted 2022-05-06 as a date."""
        return str(value) if isinstance(value, date) else value

    @model_validator(mode="after")
    def _sensible(self) -> Split:
        if (self.kind == "column") != (self.column is not None):
            raise ValueError("split.column: kind column needs it, and only kind column takes it")
        for name in ("validation", "test"):
            value = getattr(self, name)
            if isinstance(value, str) and self.kind != "time":
                raise ValueError(f"split.{name}: a moment belongs to kind time, kind {self.kind} takes a fraction; got '{value}'")
            if isinstance(value, (int, float)) and not 0 <= value < 1:
                raise ValueError(f"split.{name}: a fraction must be in [0, 1); got {value}")
        return self


class Derived(Strict):
    """A column made from the log itself without looking into the future.

    target_mean   smoothed mean of a label by a key, from train rows only; `how` says which of them a train row's own mean is of
    count         number of train rows of the key, a train row itself left out
    history       the key's earlier values of a column (as of the row's time), most recent last
    """

    name: str
    kind: Literal["target_mean", "count", "history"]
    by: str = Field(description="key column, e.g. user_id")
    label: str | None = Field(None, description="target_mean: whose mean; history: only rows where it is > 0")
    of: str | None = Field(None, description="history: the column that is collected, e.g. item_id")
    smoothing: float = Field(10.0, ge=0, description="target_mean: weight of the overall mean, in rows")
    max_length: int = Field(50, ge=1, description="history: how many are kept")
    how: Literal["out_of_fold", "as_of", "leave_one_out"] | None = Field(
        None, description="target_mean: whose labels a train row's mean is of; default: as_of in a split by time, else out_of_fold"
    )

    @model_validator(mode="after")
    def _how_is_of_means(self) -> Derived:
        if self.how is not None and self.kind != "target_mean":
            raise ValueError(f"how: belongs to kind target_mean, this is {self.kind}")
        return self


class Data(Strict):
    """Where the log is and what its columns mean. A recipe fills in all of it; what is written here wins."""

    recipe: str | None = Field(None, description="a data set the house knows, one of `prerank data list`")
    options: dict[str, Any] = Field(default_factory=dict, description="the recipe's own options")
    log: str | None = Field(None, description="CSV or Parquet file, a glob, or a folder of Parquet parts")
    users: str | None = Field(None, description="table of user features, one row a user")
    items: str | None = Field(None, description="table of item features, one row an item")
    user_id: str = Field("user_id", description="column")
    item_id: str = Field("item_id", description="column")
    time: str | None = Field(None, description="column of the event's time: integer (s, ms, us told by size) or datetime")
    request: str | None = Field(None, description="column that names the request; groups GAUC and lists")
    drop: str | None = Field(None, description="rows where this condition holds are dropped: 'rating = 3'")
    explode: tuple[str, ...] = Field((), exclude_if=unset, description="list columns of equal length: one row an entry")
    stage: StageColumn | None = Field(None, exclude_if=unset, description="how far each row came; none: all rows are impressions")
    teacher: Teacher | None = Field(None, exclude_if=unset, description="a soft label for distillation")
    bid: str | None = Field(None, exclude_if=unset, description="column, not negative")
    candidates: str | None = Field(None, exclude_if=unset, description="table of more candidates: user, item, stage (request, time)")
    labels: dict[str, Label] = Field(default_factory=dict)
    split: Split = Split()
    derive: tuple[Derived, ...] = ()
    asof: tuple[AsOf, ...] = Field((), exclude_if=unset, description="running statistics, as of each row's time")
    label_delay: Duration | None = Field(None, exclude_if=unset, description="labels are known so long after the event: 30m")
    features: tuple[Feature, ...] = ()
    growth: dict[str, Growth] = Field(default_factory=dict, exclude_if=lambda given: not given,
                                      description="vocabularies that go on growing online: feature -> how")  # fmt: skip
    width: int = Field(32, ge=1, description="field width D")
    deduplicate: bool = Field(False, description="exact duplicate rows of the log are dropped")
    cache: str | None = Field(None, description="folder of encoded columns; default: the user's cache folder")

    @model_validator(mode="after")
    def _options_of_a_recipe(self) -> Data:
        if self.options and self.recipe is None:
            raise ValueError(f"options belong to a recipe, and there is none; got {', '.join(self.options)}")
        return self

    def schema_(self) -> Schema:
        """The schema that these settings describe. Raises ConfigError naming every problem at once."""
        if not self.labels:
            raise ConfigError("data.labels: at least one label is needed, e.g. {click: {column: is_click}}")
        try:
            return Schema(features=self.features, user_id=self._id_feature("user"), item_id=self._id_feature("item"),
                          objectives=tuple(self.labels), width=self.width)  # fmt: skip
        except ValidationError as error:
            raise ConfigError("\n".join(f"data.features: {sentence(e, Schema)}" for e in error.errors())) from None

    def _id_feature(self, side: str) -> str:
        column = self.user_id if side == "user" else self.item_id
        for f in self.features:
            if f.source == column and f.kind == "categorical" and f.side == side:
                return f.name
        return column
