"""Everything that is asked of a pre-ranker's agreement with the ranking model, each with its interval, as one plain record.

    record = measure(scored, views, Settings(at=(10, 100)))
    record["metrics"]["overlap@100"]   {"value": .61, "low": .60, "high": .62, "requests": 9000, "skipped": 1000}
    record["against"]["difference"]["overlap@100"]   {"value": .02, "low": .01, "high": .03, "p": .001}

Two pre-rankers are measured on the same requests and the same bootstrap resamples of them, so that what they share cancels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prerank.batch import Stage
from prerank.config import ConfigError
from prerank.consistency.scored import Scored
from prerank.consistency.view import View, Whose
from prerank.metrics import Grouped, Resampled, resampled_means, stage_recall


@dataclass(frozen=True, slots=True)
class Settings:
    """What is measured, and how sure it has to be.

    at            the K
    keep, show    of the simulated cascade: the pre-ranker keeps so many, the ranking model shows so many; default: largest and smallest K
    p             of RBO: how far down it looks, 1 / (1 - p) places on average
    resamples     of the bootstrap over requests;  level: of its intervals
    """

    at: tuple[int, ...] = (10, 100)
    keep: int | None = None
    show: int | None = None
    p: float = 0.9
    resamples: int = 1000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        if not self.at or min(self.at) < 1:
            raise ConfigError(f"--at: must be numbers from 1 on; got {list(self.at)}")
        if not 1 <= self.shown <= self.kept:
            raise ConfigError(f"--show, --keep: 1 <= show <= keep must hold; got {self.shown} and {self.kept}")
        if not 0 < self.p < 1:
            raise ConfigError(f"--rbo-p: must lie between 0 and 1; got {self.p}")
        if not 0 < self.level < 1:
            raise ConfigError(f"--level: must lie between 0 and 1; got {self.level}")
        if self.resamples < 2:
            raise ConfigError(f"--resamples: must be at least 2; got {self.resamples}")

    @property
    def kept(self) -> int:
        return max(self.at) if self.keep is None else self.keep

    @property
    def shown(self) -> int:
        return min(self.at) if self.show is None else self.show


def measure(scored: Scored, views: Mapping[Whose, View], settings: Settings) -> dict[str, Any]:
    """The record; plain values for a JSON file. Slices are `slices.measure`'s.

    views   of the pre-ranker and of the one it is compared with, if any, on `scored.compared()`
    """
    compared = views["s"].scored
    sizes = np.unique(compared.request, return_counts=True)[1]
    found = {whose: _measures(scored, view, whose, settings) for whose, view in views.items()}
    record: dict[str, Any] = {
        "pre_ranker": scored.names[0], "ranking": scored.names[1], "requests": len(sizes), "candidates": len(compared.s),
        "per_request": {"least": int(sizes.min()), "median": float(np.median(sizes)), "most": int(sizes.max())},
        "settings": {**asdict(settings), "keep": settings.kept, "show": settings.shown, "at": sorted(set(settings.at))},
        "said": [*scored.said, *_left_out(views["s"], sizes, settings)],
        "metrics": intervals(found["s"], settings),
    }  # fmt: skip
    if "against" in found:
        record["against"] = {"name": scored.names[2], "metrics": intervals(found["against"], settings),
                             "difference": differences(found["s"], found["against"], settings)}  # fmt: skip
    return record


def intervals(found: Mapping[str, Grouped], settings: Settings) -> dict[str, dict[str, Any]]:
    """Each metric's value, interval, and the requests behind it; what no request has a value for is None, and the ends of one request's."""
    drawn = _drawn({name: g for name, g in found.items() if len(g.values) - g.skipped > 1}, settings)
    plain = {}
    for name, g in found.items():
        ends = drawn[name].interval(name, settings.level) if name in drawn else None
        plain[name] = {"value": g.value if g.skipped < len(g.values) else None, "low": ends and ends.low, "high": ends and ends.high,
                       "requests": len(g.values) - g.skipped, "skipped": g.skipped}  # fmt: skip
    return plain


def differences(first: Mapping[str, Grouped], other: Mapping[str, Grouped], settings: Settings) -> dict[str, dict[str, float]]:
    """The first's minus the other's, over requests where both have a value, on the same resamples."""
    both: dict[tuple[str, str], Grouped] = {}
    for name in [name for name in first if name in other]:
        neither = np.isnan(first[name].values + other[name].values)
        if (~neither).sum() > 1:
            both |= {(name, who): Grouped(np.where(neither, np.nan, g.values), g.weights)
                     for who, g in (("a", first[name]), ("b", other[name]))}  # fmt: skip
    drawn = _drawn({f"{who} {name}": g for (name, who), g in both.items()}, settings)
    found = {name: drawn[f"a {name}"].difference(f"a {name}", f"b {name}", settings.level) for name, who in both if who == "a"}
    return {name: {"value": d.value, "low": d.low, "high": d.high, "p": d.p} for name, d in found.items()}


def _drawn(found: Mapping[str, Grouped], settings: Settings) -> dict[str, Resampled]:
    """Resamples of each metric; metrics of as many requests share them (some slices have requests that others do not)."""
    drawn: dict[str, Resampled] = {}
    for size in {len(g.values) for g in found.values()}:
        alike = {name: g for name, g in found.items() if len(g.values) == size}
        drawn |= dict.fromkeys(alike, resampled_means(alike, resamples=settings.resamples, seed=settings.seed))
    return drawn


def _measures(scored: Scored, view: View, whose: Whose, settings: Settings) -> dict[str, Grouped]:
    """All metrics of one pre-ranker."""
    found = view.ranks(settings.at, settings.p) | view.income(settings.at) | view.played(settings.kept, settings.shown)
    if scored.stage is not None:
        for stage in (Stage.IMPRESSION, Stage.RANKING):
            for k in settings.at:
                recall = stage_recall(getattr(scored, whose), scored.stage, k, reached=stage, groups=scored.request)
                found[f"stage_recall.{stage.name.lower()}@{k}"] = recall
    return found


def _left_out(view: View, sizes: NDArray[np.int64], settings: Settings) -> list[str]:
    """What K is too large for, and what cannot be measured at all."""
    said = []
    for k in sorted({*settings.at, settings.kept}):
        short = int((sizes <= k).sum())
        if short:
            said.append(f"{short:,} of {len(sizes):,} requests have no more than {k} candidates to compare: without a value @{k}")
    if view.t_worth is None:
        said.append("regret and eCPM: left out, as ranking scores are negative; if they are logits, say so (--logits ranking, or both)")
    elif view.scored.bid is not None and view.earned is None:
        said.append("eCPM: left out, as the pre-ranker's scores are negative; if they are logits, say so (--logits score, or both)")
    return said
