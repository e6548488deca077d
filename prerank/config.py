"""One YAML file <-> typed settings; an unknown key is an error that names the nearest valid one.

    config = load("configs/ml1m/honest-inttower.yaml", overrides=["training.seed=3"])

Everything a run depends on is here, so that a run folder's `config.yaml` reproduces it.
"""

from __future__ import annotations

import difflib
import types
import typing
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from prerank.schema import Feature, Schema

M = TypeVar("M", bound=BaseModel)


class ConfigError(ValueError):
    """Something the user wrote is wrong; the message says what, where and what would be right."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Label(_Strict):
    """How one label column is made from the log: exactly one of the four ways."""

    rule: str | None = Field(None, description="a condition: 'rating > 3'; true is 1")
    column: str | None = Field(None, description="a numeric column as it is")
    weighted: dict[str, float] | None = Field(None, description="weighted sum of columns")
    levels: tuple[str, ...] | None = Field(None, description="ordered feedback, weakest first: highest level reached")

    @model_validator(mode="after")
    def _one_way(self) -> Label:
        given = [n for n in ("rule", "column", "weighted", "levels") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"a label needs exactly one of rule, column, weighted, levels; got {', '.join(given) or 'none'}")
        return self

    def columns(self) -> list[str]:
        """The log columns it names directly (those of a rule are found when it is parsed)."""
        if self.column:
            return [self.column]
        return list(self.weighted or self.levels or ())


class Split(_Strict):
    """Which rows are for fitting, for choosing, and for the one last look."""

    kind: Literal["random", "time", "user", "column"] = "random"
    column: str | None = Field(None, description="column: an integer column, 0 train, 1 validation, 2 test")
    validation: float | str = Field(
        0.1, description="random, user: a fraction of all rows (users); time: first moment of validation, or a fraction"
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


class Derived(_Strict):
    """A column made from the log itself without looking into the future.

    target_mean   smoothed mean of a label by a key, from train rows only, a train row's own label left out
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


class Data(_Strict):
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
    labels: dict[str, Label] = Field(default_factory=dict)
    split: Split = Split()
    derive: tuple[Derived, ...] = ()
    features: tuple[Feature, ...] = ()
    width: int = Field(32, ge=1, description="field width D")
    deduplicate: bool = Field(False, description="exact duplicate rows of the log are dropped")
    cache: str | None = Field(None, description="folder of encoded columns; default: the user's cache folder")

    def schema_(self) -> Schema:
        """The schema that these settings describe. Raises ConfigError naming every problem at once."""
        if not self.labels:
            raise ConfigError("data.labels: at least one label is needed, e.g. {click: {column: is_click}}")
        try:
            return Schema(features=self.features, user_id=self._id_feature("user"), item_id=self._id_feature("item"),
                          objectives=tuple(self.labels), width=self.width)  # fmt: skip
        except ValidationError as error:
            raise ConfigError("\n".join(f"data.features: {_sentence(e, Schema)}" for e in error.errors())) from None

    def _id_feature(self, side: str) -> str:
        column = self.user_id if side == "user" else self.item_id
        for f in self.features:
            if f.source == column and f.kind == "categorical" and f.side == side:
                return f.name
        return column


class Model(BaseModel):
    """The model's name and its options; which options exist is the recipe's own signature."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = "inttower"

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class TermConfig(BaseModel):
    """One term of the objective; further keys are the loss's own options."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    loss: str
    label: str | None = Field(None, description="label (objective) it sees; default: the first")
    weight: float = 1.0

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


Beta = Annotated[float, Field(ge=0, lt=1)]


class ParameterGroup(_Strict):
    """Parameters whose name matches get their own rate and decay; the first match counts."""

    match: str = Field(description="pattern over parameter names, e.g. '*ids.table*' or '*bias*'")
    lr: float | None = Field(None, gt=0)
    l2: float | None = Field(None, ge=0, description="weight of the squared norm added to the gradient")
    count_power: float | None = Field(None, description="an embedding row's l2 grows with (its train count / mean count) ** this")


class Optimizer(_Strict):
    name: Literal["adam", "adamw", "adagrad", "ftrl"] = "adam"
    lr: float = Field(1e-3, gt=0)
    l2: float = Field(0.0, ge=0, description="adam, adagrad: added to the gradient; adamw: decoupled decay; ftrl: its lambda 2")
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    beta: float = Field(1.0, gt=0, description="ftrl: added to the root of a coordinate's summed squared gradients")
    l1: float = Field(0.0, ge=0, description="ftrl: its lambda 1, against the sum of all rows' gradients; weights with less evidence are 0")
    groups: tuple[ParameterGroup, ...] = ()
    sparse_from: int = Field(500_000, ge=1, description="embedding tables with at least so many rows are updated row-wise")
    sparse_lr: float = Field(0.02, gt=0, description="row-wise Adagrad's rate for such tables (ftrl: they keep ftrl)")

    @model_validator(mode="after")
    def _of_its_kind(self) -> Optimizer:
        if self.name != "ftrl" and self.l1:
            raise ValueError(f"l1: only ftrl has it; got {self.l1} with {self.name}")
        if self.name == "ftrl" and any(g.count_power is not None for g in self.groups):
            raise ValueError("groups: ftrl has a rate for each coordinate and takes no count_power")
        return self


class Training(_Strict):
    epochs: int = Field(10, ge=1)
    batch_size: int = Field(2048, ge=1)
    eval_batch_size: int = Field(16384, ge=1)
    optimizer: Optimizer = Optimizer()
    seed: int = Field(0, ge=0, lt=2**32)
    patience: int = Field(3, ge=1, description="epochs without a better validation metric before stopping")
    monitor: Literal["auc", "gauc", "logloss"] = Field("auc", description="validation metric that chooses the epoch")
    clip: float | None = Field(None, gt=0, description="gradient norm is clipped to this")
    average: Beta | None = Field(None, description="decay of averaged weights, which are then validated, kept and served; null: none")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16: autocast")
    matmul: Literal["highest", "medium"] = Field(
        "medium", description="medium: the fast path (oneDNN; fp32 quality without AMX, rounded with it)"
    )
    threads: int | None = Field(None, ge=1, le=1024, description="torch threads; default: torch's own")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 ...")
    dedup: bool = Field(True, description="each distinct user and item is encoded once a batch")
    shuffle: Literal["auto", "full", "blocks", "none"] = Field("auto", description="blocks: bounded memory for logs larger than it")
    checkpoint_seconds: float = Field(120.0, gt=0, description="seconds between checkpoints inside an epoch")
    freeze_after_first_epoch: bool = Field(False, description="LEAKY reproduction only: the released code's eval-mode quirk")


class Config(_Strict):
    """A run, whole."""

    name: str = "prerank"
    data: Data = Data()
    model: Model = Model()
    objective: tuple[TermConfig, ...] = (TermConfig(loss="logloss"),)
    training: Training = Training()
    output: str = Field("runs/prerank", description="folder of the run: config, checkpoints, metrics")
    leaky: str | None = Field(None, description="why this protocol leaks; set, every table says LEAKY")


def load(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """Read and check a YAML file. Raises ConfigError naming every problem at once."""
    return parse(read(path), overrides, where=str(path))


def read(path: str | Path) -> dict[str, Any]:
    """A YAML file as a plain mapping, unchecked. Raises ConfigError when it cannot be read or is no mapping."""
    path = Path(path)
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"config '{path}': cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"config '{path}': is not text in UTF-8") from None
    try:
        raw = yaml.load(text, _Loader) or {}
    except yaml.YAMLError as error:
        why = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"config '{path}': not valid YAML: {why}{_mark(error)}") from None
    except RecursionError:
        raise ConfigError(f"config '{path}': not valid YAML: brackets inside brackets without end") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"config '{path}': must be a mapping of keys, got {type(raw).__name__}")
    return raw


def override(raw: dict[str, Any], overrides: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """A plain mapping with each `a.b=1` put in. Raises ConfigError for one that cannot be."""
    for one in overrides:
        raw = _override(raw, one)
    return raw


def parse(raw: dict[str, Any], overrides: list[str] | tuple[str, ...] = (), where: str = "config") -> Config:
    """Check a plain mapping. Raises ConfigError naming every problem at once."""
    return checked(Config, override(raw, overrides), where)


def checked(kind: type[M], raw: dict[str, Any], where: str) -> M:
    """A plain mapping as settings of a kind. Raises ConfigError naming every problem at once."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        problems = [_sentence(e, kind) for e in error.errors()]
        raise ConfigError("\n".join(f"{where}: {p}" for p in problems)) from None


def dump(config: Config) -> str:
    """The settings that were written, as YAML that `load` reads back to an equal Config.

    Also where it equals the default: a recipe fills in what was not written, so a written `split.kind: random` means something.
    """
    return yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True), sort_keys=False, allow_unicode=True)


def nearest(word: str, valid: typing.Iterable[str]) -> str:
    """`; did you mean 'x'?` when something is near, else the list of what is valid."""
    names = sorted(valid)
    close = difflib.get_close_matches(word[:100], names, n=1, cutoff=0.6)  # a request's word may be a million letters
    return f"; did you mean '{close[0]}'?" if close else f"; valid: {', '.join(names)}"


class _Loader(yaml.SafeLoader):
    """YAML that does not let a key stand twice, which would silently take the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key.value}' stands twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _mark(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""


def _override(raw: dict[str, Any], override: str) -> dict[str, Any]:
    """`a.b=1` -> raw with that value; the value is read as YAML."""
    key, sep, text = override.partition("=")
    if not sep or not key:
        raise ConfigError(f"--set '{override}': must look like key.path=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set '{override}': the value is not valid YAML") from None
    return put(raw, key, value, f"--set '{override}'")


def put(raw: dict[str, Any], key: str, value: Any, where: str) -> dict[str, Any]:
    """A copy of a plain mapping with a value at a path, 'a.0.b'. Raises ConfigError, which starts with `where`."""
    found: dict[str, Any] = _put(raw, key.split("."), value, where)
    return found


def _put(node: Any, path: list[str], value: Any, where: str) -> Any:
    if not path:
        return value
    head, *rest = path
    if isinstance(node, (list, tuple)):
        if not head.isdecimal() or int(head) >= len(node):
            raise ConfigError(f"{where}: '{head}' must be an index below {len(node)}")
        return [_put(v, rest, value, where) if i == int(head) else v for i, v in enumerate(node)]
    if node is not None and not isinstance(node, dict):
        raise ConfigError(f"{where}: '{head}' lies inside a plain value")
    node = node or {}
    return {**node, head: _put(node.get(head), rest, value, where)}


def _sentence(error: Any, kind: type[BaseModel]) -> str:
    """One pydantic error as `key.path: rule, got value`."""
    path = ".".join(str(p) for p in error["loc"])
    if error["type"] == "extra_forbidden":
        *parents, key = error["loc"]
        return f"unknown key '{path}'{nearest(str(key), _keys_at(kind, parents))}"
    message = error["msg"].removeprefix("Value error, ")
    got = "" if error["type"] in ("missing", "value_error") else f"; got {error['input']!r}"
    return f"{path}: {message}{got}" if path else f"{message}{got}"


def _keys_at(kind: type[BaseModel], path: list[Any]) -> list[str]:
    """Valid keys of the mapping at a path of the settings."""
    model: Any = kind
    for part in path:
        if isinstance(part, int) or not (isinstance(model, type) and issubclass(model, BaseModel)):
            continue
        if part in model.model_fields:
            model = _inner_model(model.model_fields[part].annotation)
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _inner_model(annotation: Any) -> Any:
    """The pydantic model inside `X`, `X | None`, `tuple[X, ...]` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (tuple, list, dict, typing.Union, types.UnionType):
        for arg in typing.get_args(annotation):
            found = _inner_model(arg)
            if found is not None:
                return found
    return None
