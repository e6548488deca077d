"""Every arm's numbers, and their differences from the control, as one plain record.

    record = compare(seen, Settings(control="backbone"))
    record["metrics"]["click"]["arms"]["cs3"]["relative"]      {"value": .031, "low": .012, "high": .050, "p": .0013}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prerank.data import DataError
from prerank.experiments.read import Seen
from prerank.metrics.bootstrap import Difference
from prerank.metrics.experiment import Ratio, difference, quantile, ratio, sample_ratio

POINTS = 20  # moments of the plot over time
SUSPECT = 0.001  # a sample-ratio p-value below it says that users were not dealt as configured
PER = 1000.0  # rows that a value is told of


@dataclass(frozen=True, slots=True)
class Settings:
    """control: the arm that others are compared with; shares: of users each arm should get, equal where not given; level of intervals."""

    control: str
    shares: Mapping[str, float] = field(default_factory=dict)
    level: float = 0.95


def compare(seen: Seen, settings: Settings) -> dict[str, Any]:
    """Raises DataError for an arm that nobody saw."""
    for name in (settings.control, *settings.shares):
        if name not in seen.arms:
            raise DataError(f"arm '{name}': nobody saw it; arms: {', '.join(seen.arms)}")
    users = {name: len(np.unique(seen.user[seen.arm == a])) for a, name in enumerate(seen.arms)}
    rows = {name: int((seen.arm == a).sum()) for a, name in enumerate(seen.arms)}
    shares = [settings.shares.get(name, 1.0) for name in seen.arms]
    p = sample_ratio(list(users.values()), shares)
    metrics = {name: _metric(seen, column, scale, settings) for name, column, scale in _columns(seen)}
    return {
        "control": settings.control, "level": settings.level, "arms": list(seen.arms), "users": users, "rows": rows,
        "sample_ratio": {"p": p, "shares": dict(zip(seen.arms, shares, strict=True)), "suspect": p < SUSPECT},
        "metrics": metrics, "latency": _latency(seen, settings), "over_time": _over_time(seen, settings), "said": list(seen.said),
    }  # fmt: skip


def _columns(seen: Seen) -> list[tuple[str, NDArray[np.float64], float]]:
    return [(n, v, 1.0) for n, v in seen.rates.items()] + [(f"{n} per {PER:,.0f}", v, PER) for n, v in seen.values.items()]


def _metric(seen: Seen, column: NDArray[np.float64], scale: float, settings: Settings) -> dict[str, Any]:
    ratios = _ratios(seen, column, scale, np.ones(len(column), bool))
    control = ratios[settings.control]
    arms: dict[str, Any] = {}
    for name, found in ratios.items():
        low, high = found.interval(settings.level)
        arms[name] = _known({"value": found.value, "low": low, "high": high})
        if name != settings.control:
            absolute, relative = difference(found, control, settings.level)
            arms[name] |= {"difference": _told(absolute), "relative": _told(relative)}
    return {"arms": arms}


def _ratios(seen: Seen, column: NDArray[np.float64], scale: float, rows: NDArray[np.bool_]) -> dict[str, Ratio]:
    """Each arm's sum of a column over rows, whose units are users."""
    found = {}
    for a, name in enumerate(seen.arms):
        own = rows & (seen.arm == a)
        users, where = np.unique(seen.user[own], return_inverse=True)
        found[name] = ratio(np.bincount(where, scale * column[own], len(users)), np.bincount(where, minlength=len(users)))
    return found


def _latency(seen: Seen, settings: Settings) -> dict[str, Any] | None:
    if seen.latency is None:
        return None
    told: dict[str, Any] = {}
    for a, name in enumerate(seen.arms):
        own = seen.latency[seen.arm == a]
        own = own[~np.isnan(own)]
        told[name] = {"requests": len(own)}
        for said, q in (("p50", 0.5), ("p99", 0.99)):
            told[name][said] = _known(dict(zip(("value", "low", "high"), quantile(own, q, settings.level), strict=True)))
    return told


def _over_time(seen: Seen, settings: Settings) -> dict[str, Any] | None:
    """Relative differences of all rows until each of POINTS moments: what a test of that length would have said."""
    if seen.ts is None:
        return None
    moments = np.unique(np.quantile(seen.ts, np.linspace(0, 1, POINTS + 1)[1:]).astype(np.int64))
    series: dict[str, dict[str, list[dict[str, float | None]]]] = {}
    for metric, column, scale in _columns(seen):
        series[metric] = {name: [] for name in seen.arms if name != settings.control}
        for moment in moments.tolist():
            ratios = _ratios(seen, column, scale, seen.ts <= moment)
            for name, points in series[metric].items():
                relative = difference(ratios[name], ratios[settings.control], settings.level)[1]
                points.append({"ts": moment, **_told(relative)})
    return series


def _told(found: Difference) -> dict[str, float | None]:
    return _known({"value": found.value, "low": found.low, "high": found.high, "p": found.p})


def _known(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no NaN: what is not known is null."""
    return {name: None if math.isnan(value) else value for name, value in numbers.items()}
