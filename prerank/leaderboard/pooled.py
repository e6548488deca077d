"""A board's second half where its configs have a section `evaluation`: recall@K and ndcg@K in a pool of candidates.

A training keeps each metric's value in every user's lists (`test-pool-METRIC.npy`), so that models are compared in pairs, user by user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prerank.leaderboard.shared import Seeds, beside, views
from prerank.leaderboard.state import keep, kept
from prerank.metrics import Grouped, resampled_means
from prerank.run import Run

RESAMPLES = 1000


def measured(run: Run) -> dict[str, Any] | None:
    """{'said': what the pool is, 'metrics': {'recall@100': ..}} of the test rows, the users' values put beside; None without a pool."""
    if run.config.evaluation is None:
        return None
    pool = run.pool("test")
    found = run.retrieve(pool)
    of_users = {name: found.of_users(name) for name in found.metrics}
    keep(run.folder, **{f"pool-{name}": np.stack([g.values, g.weights]) for name, g in of_users.items()})
    return {"said": pool.said, "metrics": {name: g.value for name, g in of_users.items()}}


def row(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the JSON says of a row: values seed by seed."""
    pools = [m["pool"] for m in measured if m.get("pool")]
    if len(pools) < len(measured):
        return {}
    return {"pool": {name: [p["metrics"][name] for p in pools] for name in pools[0]["metrics"]}, "pool_said": pools[0]["said"]}


def compared(folders: Mapping[str, Mapping[int, Path]], rows: Sequence[Mapping[str, Any]], baseline: str) -> dict[str, Any]:
    """{metric: {row: {value, baseline: .., best_other: ..}}}: values averaged over the seeds of both, a bootstrap over users.

    folders   of each row's finished trainings, by seed
    """
    asked = {r["label"]: (r["pool_said"], tuple(r["pool"])) for r in rows if "pool" in r}
    first = next(iter(asked.values()), ("", ()))
    same = [label for label, pool in asked.items() if pool == first]  # other candidates are another question
    if len(same) < 2:
        return {}
    return {name: _of_metric(name, {label: folders[label] for label in same}, baseline) for name in first[1]}


def _of_metric(name: str, folders: Mapping[str, Mapping[int, Path]], baseline: str) -> dict[str, Any]:
    values = {label: _mean(list(of.values()), name) for label, of in folders.items()}
    users = max(len(g.values) for g in values.values())
    seeds: Seeds = {label: list(folders[label]) for label, g in values.items() if len(g.values) == users}
    means = {key: _mean([folders[label][s] for s in own], name) for key, (label, own) in views(seeds).items()}
    found = resampled_means(means, resamples=RESAMPLES)
    order = sorted(seeds, key=lambda label: -found.values[label])
    return {label: {"value": found.values[label], **beside(found, label, order, baseline, seeds)} for label in order}


def _mean(folders: Sequence[Path], name: str) -> Grouped:
    """A metric's mean over seeds in the lists of each user."""
    parts = [kept(folder, f"pool-{name}") for folder in folders]  # [2, users] each
    return Grouped(np.mean([p[0] for p in parts], axis=0), parts[0][1])
