"""A leaderboard file: which models are compared, on one data set under one protocol, over how many seeds.

    title: MovieLens-1M, honest protocol
    protocol: rows rated 3 dropped, random 70/10/20, no feature made of labels
    baseline: DSSM
    rows:
      - {config: configs/ml1m/honest-dssm.yaml, label: DSSM}
      - {config: configs/ml1m/honest-inttower.yaml, label: without Light-SE, set: {model.gate: null}}

A row is one config file, and what differs from it. A training is known by a digest of its settings: rows with equal settings share
it, on any board, and a changed config is trained again.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from prerank.config import Config, ConfigError, checked, dump, nearest, parse, put, read
from prerank.rankers import RANKERS

Kind = Literal["two-tower", "ranker"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Row(_Strict):
    """One model: a config file and what differs from it."""

    config: str = Field(description="the run's YAML file")
    label: str | None = Field(None, description="what the tables call it; default: the run's name")
    set: dict[str, Any] = Field(default_factory=dict, description="settings that differ from the file: {model.gate: senet}")
    kind: Kind | None = Field(None, description="two-tower or ranker; default: what the model is")


class Bar(_Strict):
    """A figure that is not ours: published, or from elsewhere, and to be reached."""

    label: str = Field(description="what the tables call it")
    auc: float = Field(gt=0, le=1)
    logloss: float | None = Field(None, ge=0)
    objective: str | None = Field(None, description="the data's label that it speaks of; default: the first")
    source: str = Field(description="where it comes from")


class Board(_Strict):
    """A leaderboard."""

    title: str = Field(description="heads the tables")
    protocol: str = Field(description="rows, split and features in one line")
    leaky: str | None = Field(None, description="why the protocol leaks; set, every row is LEAKY (a config's own `leaky` marks its row)")
    baseline: str = Field(description="label of the row that the others are compared with")
    seeds: int = Field(3, ge=1, description="trainings a row; their seeds follow each other")
    first_seed: int = Field(0, ge=0, description="the first of them")
    rows: tuple[Row, ...] = Field(min_length=1)
    bars: tuple[Bar, ...] = ()

    @model_validator(mode="after")
    def _first(self) -> Board:
        if self.first_seed + self.seeds > 2**32:
            raise ValueError("first_seed: seeds must stay below 2**32")
        return self


class Entry:
    """A row with its settings checked.

    label, config, kind   what the tables call it, the run's settings (seed 0), and what kind of model it is
    """

    def __init__(self, row: Row, config: Config) -> None:
        self.row, self.config = row, config
        self.label = row.label or config.name
        self.kind: Kind = row.kind or ("ranker" if config.model.name in RANKERS else "two-tower")

    @cached_property
    def digest(self) -> str:
        """Twelve hex digits of all that decides a training but its seed."""
        return hashlib.sha256(json.dumps(self._deciding(), sort_keys=True).encode()).hexdigest()[:12]

    def seeded(self, seed: int, runs: Path) -> Config:
        """The run's settings for one seed: a folder of its own below `runs`, one thread."""
        raw = yaml.safe_load(dump(self.config)) or {}
        folder = runs / f"{self.config.data.recipe or 'log'}-{self.config.model.name}-{self.digest}-{seed}"
        for key, value in {"training.seed": seed, "training.threads": 1, "output": str(folder)}.items():
            raw = put(raw, key, value, self.label)
        return parse(raw, where=self.label)

    def _deciding(self) -> dict[str, Any]:
        plain = self.config.model_dump(mode="json", exclude_unset=True, exclude={"name", "output", "leaky"})
        training = {k: v for k, v in plain.pop("training", {}).items() if k not in ("seed", "threads")}
        return {**plain, "training": training}

    def __repr__(self) -> str:
        return f"<Entry {self.label}: {self.row.config}>"


def load(path: str | Path) -> tuple[Board, list[Entry]]:
    """A leaderboard's YAML file and the settings of its rows. Raises ConfigError naming every problem at once."""
    board = checked(Board, read(path), str(path))
    entries, problems = [], []
    for i, row in enumerate(board.rows):
        try:
            entries.append(Entry(row, settings(row)))
        except ConfigError as error:
            problems += [f"{path}: rows.{i}: {line}" for line in str(error).splitlines()]
    if problems:
        raise ConfigError("\n".join(problems))
    labels = [entry.label for entry in entries]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise ConfigError(f"{path}: rows: label '{twice}' stands twice; give one of them another label")
    if board.baseline not in labels:
        raise ConfigError(f"{path}: baseline: no row is called '{board.baseline}'{nearest(board.baseline, labels)}")
    return board, entries


def settings(row: Row) -> Config:
    """The run of a row. Raises ConfigError."""
    raw = read(row.config)
    for key, value in row.set.items():
        raw = put(raw, key, value, f"set '{key}'")
    return parse(raw, where=row.config)
