"""Thresholds in a YAML file: what a pre-ranker must keep to, so that a CI job can fail.

    metrics:
      overlap@100: {min: 0.60}
      regret@100: {max: 0.02, sure: true}      # the interval's upper end must be below, too
    slices:
      tail items: {overlap@100: {min: 0.5}}
    difference:                                # to the pre-ranker of --against
      overlap@100: {min: -0.002, sure: true}   # surely not worse by more

`check` compares a record with them; a metric that has no value in the record does not hold its threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from prerank.config import ConfigError, checked, nearest, read
from prerank.config.strict import Strict


class Bound(Strict):
    """Where a metric must lie."""

    min: float | None = Field(None, description="least value")
    max: float | None = Field(None, description="largest value")
    sure: bool = Field(False, description="the whole interval must hold it: its lower end for min, its upper end for max")

    @model_validator(mode="after")
    def _some(self) -> Bound:
        if self.min is None and self.max is None:
            raise ValueError("needs min, max or both; got neither")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min must not be above max; got {self.min} and {self.max}")
        return self


class Thresholds(Strict):
    """Every bound, by metric."""

    metrics: dict[str, Bound] = Field(default_factory=dict, description="metric of the report -> bound")
    slices: dict[str, dict[str, Bound]] = Field(default_factory=dict, description="slice, by the beginning of its name -> metric -> bound")
    difference: dict[str, Bound] = Field(default_factory=dict, description="metric -> bound on this pre-ranker minus the one of --against")

    @model_validator(mode="after")
    def _some(self) -> Thresholds:
        if not (self.metrics or self.slices or self.difference):
            raise ValueError("a gate without a threshold lets everything pass; give metrics, slices or difference")
        return self


def load(path: str | Path) -> Thresholds:
    """Raises ConfigError naming every problem of the file at once."""
    return checked(Thresholds, read(path), str(path))


def check(thresholds: Thresholds, record: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Each bound with what was found and whether it holds. Raises ConfigError for a metric or slice that the record does not know.

    where   the thresholds' file, for errors
    """
    found: list[dict[str, Any]] = []
    problems: list[str] = []
    for place, bounds in _places(thresholds, record, problems, where):
        metrics = place["metrics"]
        for name, bound in bounds.items():
            if name not in metrics:
                problems.append(f"{where}: {place['name']}: no metric '{name}'{nearest(name, metrics)}")
                continue
            found += _tested(f"{place['label']}{name}", bound, metrics[name])
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def broken(tested: list[dict[str, Any]]) -> list[str]:
    """One line for each bound that does not hold."""
    return [t["said"] for t in tested if not t["held"]]


def _places(
    thresholds: Thresholds, record: Mapping[str, Any], problems: list[str], where: str
) -> list[tuple[dict[str, Any], dict[str, Bound]]]:
    places = [({"name": "metrics", "label": "", "metrics": record["metrics"]}, thresholds.metrics)]
    for name, bounds in thresholds.slices.items():
        slices = [s for s in record["slices"] if s == name or s.startswith(f"{name} (")]
        if slices:
            places.append(({"name": f"slices.{name}", "label": f"{name}: ", "metrics": record["slices"][slices[0]]["metrics"]}, bounds))
        else:
            known = [s.partition(" (")[0] for s in record["slices"]]
            problems.append(f"{where}: slices: no slice '{name}' in these requests{nearest(name, known)}")
    if thresholds.difference and "against" not in record:
        problems.append(f"{where}: difference: needs a second pre-ranker; give --against")
    elif thresholds.difference:
        metrics = {**dict.fromkeys(record["metrics"]), **record["against"]["difference"]}
        places.append(({"name": "difference", "label": "difference of ", "metrics": metrics}, thresholds.difference))
    return places


def _tested(name: str, bound: Bound, found: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    tested = []
    for kind, limit, end in (("min", bound.min, "low"), ("max", bound.max, "high")):
        if limit is None:
            continue
        value: float | None = found["value" if not bound.sure else end] if found else None
        held = value is not None and (value >= limit if kind == "min" else value <= limit)
        rule = f"{'at least' if kind == 'min' else 'at most'} {limit:g}"
        what = f"its interval's {'lower' if kind == 'min' else 'upper'} end" if bound.sure else "it"
        nothing = "too few requests for an interval" if found and found["value"] is not None else "no request has a value for it"
        said = f"{name}: must be {rule}; " + (nothing if value is None else f"{what} is {value:.5g}")
        tested.append({"metric": name, "rule": rule, "sure": bound.sure, "value": value, "held": held, "said": said})
    return tested
