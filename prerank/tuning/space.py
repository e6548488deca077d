"""What is searched: a file of its own beside the run's config.

    run: configs/ml1m/honest-inttower.yaml
    trials: 30
    space:
      training.optimizer.lr: {log: [1.0e-4, 1.0e-2]}
      model.heads: {choices: [1, 2, 4]}
    latency: {candidates: 1000, milliseconds: 0.3}
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from prerank import build
from prerank.config import Config, ConfigError, checked, dump, override, parse, put, read
from prerank.datasets import resolve

# What decides how a trial is measured must be the same for all.
FIXED = ("data.recipe", "data.log", "data.labels", "data.split", "data.drop", "output", "training.monitor", "leaky", "name")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Range(_Strict):
    """The values of one setting: exactly one of the four."""

    log: tuple[float, float] | None = Field(None, description="from, to; drawn evenly over orders of magnitude")
    uniform: tuple[float, float] | None = Field(None, description="from, to; drawn evenly")
    integer: tuple[int, int] | None = Field(None, description="from, to, both included")
    choices: tuple[Any, ...] | None = Field(None, description="any values, lists too; no order is assumed")

    @model_validator(mode="after")
    def _one_way(self) -> Range:
        given = [n for n in type(self).model_fields if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"a range needs exactly one of log, uniform, integer, choices; got {', '.join(given) or 'none'}")
        for name, bounds in (("log", self.log), ("uniform", self.uniform), ("integer", self.integer)):
            if bounds is not None and not bounds[0] < bounds[1]:
                raise ValueError(f"{name}: must go from a lower to a higher bound; got {list(bounds)}")
        if self.log is not None and self.log[0] <= 0:
            raise ValueError(f"log: bounds must be positive; got {list(self.log)}")
        if self.choices is not None and len(self.choices) < 2:
            raise ValueError(f"choices: must be at least 2; got {list(self.choices)}")
        return self

    def suggest(self, trial: Any, key: str) -> Any:
        """The value that an optuna trial draws."""
        if self.choices is not None:  # as text: optuna knows no lists
            return self.decoded(trial.suggest_categorical(key, [json.dumps(c) for c in self.choices]))
        if self.integer is not None:
            return trial.suggest_int(key, *self.integer)
        bounds = self.log or self.uniform
        assert bounds is not None
        return trial.suggest_float(key, *bounds, log=self.log is not None)

    def decoded(self, parameter: Any) -> Any:
        """A value as optuna keeps it -> as the config has it."""
        return json.loads(parameter) if self.choices is not None else parameter

    def parameter(self, value: Any) -> Any:
        """A value as the config has it -> as optuna keeps it; None when it lies outside."""
        if self.choices is not None:
            text = json.dumps(value)
            return text if text in [json.dumps(c) for c in self.choices] else None
        bounds = self.integer or self.log or self.uniform
        assert bounds is not None
        number = isinstance(value, int if self.integer else (int, float)) and not isinstance(value, bool)
        return value if number and bounds[0] <= value <= bounds[1] else None

    @property
    def size(self) -> float:
        """How many values there are."""
        if self.choices is not None:
            return len(self.choices)
        return float("inf") if self.integer is None else self.integer[1] - self.integer[0] + 1

    def extremes(self) -> list[Any]:
        """Values that stand for all of them when settings are checked."""
        return list(self.choices or self.integer or self.log or self.uniform or ())


class Latency(_Strict):
    """The time that an answer may take; what is slower is not trained."""

    candidates: int = Field(1000, ge=1, description="items to score for one user")
    milliseconds: float = Field(gt=0, description="budget of the median call, in process, on one thread")
    dtype: Literal["fp32", "bf16", "int8"] = Field("fp32", description="how item vectors are stored")


class Tune(_Strict):
    """A search."""

    run: str = Field(description="config file of the run that is tuned")
    set: tuple[str, ...] = Field((), description="settings that differ from that file, as of `--set`")
    space: dict[str, Range] = Field(min_length=1, description="setting -> its values")
    trials: int = Field(20, ge=1, description="how many are tried, all together")
    metric: Literal["auc", "gauc", "logloss"] | None = Field(None, description="on validation; default: the run's `training.monitor`")
    latency: Latency | None = Field(None, description="budget that the answer must keep")
    prune: bool = Field(True, description="after a third of the epochs stop a trial that is below the median")
    seed: int = Field(0, ge=0, lt=2**31, description="of what is drawn; trainings keep their own")
    output: str | None = Field(None, description="folder of the search; default: the run's, with -tune")

    def base(self) -> Config:
        """The run's settings before anything is varied. Raises ConfigError."""
        raw = override(read(self.run), self.set)
        return parse(raw if self.metric is None else put(raw, "training.monitor", self.metric, "tune.metric"), where=self.run)

    def folder(self, base: Config) -> Path:
        return Path(self.output or f"{base.output}-tune")

    def check(self, base: Config) -> None:
        """Raise ConfigError unless every range names a setting and each of its ends can be built."""
        for key, values in self.space.items():
            if any(key == fixed or key.startswith(f"{fixed}.") for fixed in FIXED):
                raise ConfigError(f"tune.space '{key}': decides what is measured, so it must be the same in every trial")
            for value in values.extremes():
                try:
                    _buildable(varied(base, {key: value}))
                except ConfigError as error:
                    raise ConfigError("\n".join(f"tune.space '{key}' = {value!r}: {line}" for line in str(error).splitlines())) from None


def load(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Tune:
    """Read a search's YAML file. Raises ConfigError naming every problem at once."""
    return checked(Tune, override(read(path), overrides), str(path))


def varied(base: Config, values: dict[str, Any]) -> Config:
    """The settings with some of them changed. Raises ConfigError."""
    raw = yaml.safe_load(dump(base)) or {}
    for key, value in values.items():
        raw = put(raw, key, value, f"'{key}'")
    return parse(raw, where="settings")


def current(config: Config, key: str) -> Any:
    """The value of a setting as the run has it, defaults included; None when it has none."""
    node: Any = config.model_dump(mode="json")
    *parents, last = key.split(".")
    for part in parents:
        if isinstance(node, list):
            node = node[int(part)] if part.isdecimal() and int(part) < len(node) else None
        else:
            node = node.get(part) if isinstance(node, dict) else None
    if isinstance(node, dict) and last in node:
        return node[last]
    if parents == ["model"]:
        parameter = inspect.signature(build.MODELS[config.model.name]).parameters.get(last)
        return None if parameter is None else _plain(parameter.default)
    return None


def _buildable(config: Config) -> None:
    schema = resolve(config.data).schema_()
    build.objective(config.objective, schema)
    build.check_model(config.model, schema)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
