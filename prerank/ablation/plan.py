"""An ablation file: backbones x subsets of CS3 x seeds, replayed in the order of time.

    title: CS3 on KuaiRand-Pure
    protocol: one pass in the order of time, test days 6 to 8 May
    synergy: {cas: {sides: [user]}, cts: {decay: 0.95}, cms: {ranker: dcnv2}}
    backbones:
      - {config: configs/kuairand/replay-weak.yaml, label: DSSM}

Of a backbone are compared: itself, every subset of the modules, the control that is told count and age of its memories but no vector,
variants of one's own (`more`), and the ranking model that CMS learns from. Each is known by the digest of its settings, as a
leaderboard's rows are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from prerank.config import ConfigError, Synergy, checked, read
from prerank.leaderboard.board import Entry, Row, settings

PLAIN, CONTROL, RANKER = "plain", "count and age", "ranking model"
MODULES = ("cas", "cts", "cms")
UNREAD = {"name": "mlp", "hidden": [1], "norm": False}  # the control's ranking model: nothing reads its vectors
Protocol = Literal["prequential", "frozen"]
PROTOCOLS: tuple[Protocol, ...] = ("prequential", "frozen")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Backbone(_Strict):
    """One two-tower without CS3: a config file and what differs from it."""

    config: str = Field(description="the replay's YAML file")
    label: str = Field(description="what the tables call it")
    set: dict[str, Any] = Field(default_factory=dict, description="settings that differ from the file: {model.name: inttower}")
    synergy: dict[str, dict[str, Any]] = Field(default_factory=dict, description="what differs from the plan's: {cts: {decay: 0.9}}")
    variants: tuple[str, ...] | None = Field(None, description="only these, by label; default: all")


class Plan(_Strict):
    """See the module's first lines."""

    title: str = Field(description="heads the tables")
    protocol: str = Field(description="rows, split and features in one line")
    seeds: int = Field(5, ge=1, description="runs a variant; their seeds follow each other")
    first_seed: int = Field(0, ge=0, description="the first of them")
    cold: int = Field(3, ge=0, description="an id with at most so many events is cold")
    synergy: dict[str, dict[str, Any]] = Field(min_length=1, description="the modules whose subsets are compared, and their options")
    more: dict[str, dict[str, dict[str, Any]]] = Field(default_factory=dict, description="further variants: label -> synergy")
    backbones: tuple[Backbone, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _sound(self) -> Plan:
        labels = [b.label for b in self.backbones]
        twice = next((x for x in labels if labels.count(x) > 1), None)
        if twice is not None:
            raise ValueError(f"backbones: label '{twice}' stands twice")
        taken = next((name for name in self.more if name in (PLAIN, CONTROL, RANKER)), None)
        if taken is not None:
            raise ValueError(f"more: '{taken}' is the name of a variant that is there anyway")
        if self.first_seed + self.seeds > 2**32:
            raise ValueError("first_seed: seeds must stay below 2**32")
        return self


@dataclass(frozen=True, slots=True)
class Cell:
    """A variant of a backbone."""

    backbone: str
    variant: str
    entry: Entry


def load(path: str | Path) -> tuple[Plan, list[Cell]]:
    """An ablation's YAML file and its cells, backbone by backbone. Raises ConfigError naming every problem at once."""
    plan = checked(Plan, read(path), str(path))
    cells, problems = [], []
    for backbone in plan.backbones:
        try:
            cells += _cells(plan, backbone)
        except ConfigError as error:
            problems += [f"{path}: backbone '{backbone.label}': {line}" for line in str(error).splitlines()]
    if problems:
        raise ConfigError("\n".join(problems))
    return plan, cells


def _cells(plan: Plan, backbone: Backbone) -> list[Cell]:
    variants = dict(_variants(_joined(plan.synergy, backbone.synergy), plan.more))
    unknown = [name for name in backbone.variants or () if name not in variants]
    if unknown:
        raise ConfigError(f"variants: '{unknown[0]}' is none; there are {', '.join(variants)}")
    chosen = backbone.variants or tuple(variants)
    if PLAIN not in chosen:
        raise ConfigError(f"variants: '{PLAIN}' is what the others are compared with; it cannot be left out")
    return [Cell(backbone.label, name, _entry(backbone, name, change)) for name, change in variants.items() if name in chosen]


def _entry(backbone: Backbone, variant: str, change: dict[str, Any]) -> Entry:
    row = Row(config=backbone.config, label=f"{backbone.label}, {variant}", set={**backbone.set, **change})
    return Entry(row, settings(row))


def _variants(synergy: Mapping[str, dict[str, Any]], more: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Label and settings that differ from the plain backbone's."""
    names = [name for name in MODULES if name in synergy]
    yield PLAIN, {}
    for n in range(1, len(names) + 1):
        for subset in itertools.combinations(names, n):
            yield "+".join(subset), {"synergy": {name: synergy[name] for name in subset}}
    if "cts" in names or "cms" in names:
        told = {name: {**synergy[name], **({} if name == "cas" else {"inputs": "count_age"})} for name in names}
        if "ranker" in told.get("cms", {}):
            told["cms"]["ranker"] = UNREAD
        yield CONTROL, {"synergy": told}
    for label, given in more.items():
        yield label, {"synergy": given}
    ranker = Synergy.model_validate({"cms": synergy["cms"]}).cms if "cms" in names else None
    if ranker is not None and ranker.ranker is not None:
        yield RANKER, {"model": ranker.ranker.model_dump()}


def _joined(one: Mapping[str, dict[str, Any]], other: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: {**one.get(name, {}), **other.get(name, {})} for name in {**one, **other}}
