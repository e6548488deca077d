"""A board's second half where its configs have a section `evaluation`: recall@K and ndcg@K in a pool of candidates.

A training keeps each metric's value in every user's lists (`test-pool-METRIC.npy`), so that models are compared in pairs, user by user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from prerank.leaderboard.state import keep, kept
from prerank.metrics import Grouped, Resampled, resampled_means
from prerank.run import Run

LEVEL, RESAMPLES = 0.99, 1000


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


def compared(folders: Mapping[str, Sequence[Path]], rows: Sequence[Mapping[str, Any]], baseline: str) -> dict[str, Any]:
    """{metric: {row: {value, baseline: .., best_other: ..}}}: seed-averaged values, a bootstrap over users.

    folders   of each row's finished trainings
    """
    asked = {r["label"]: (r["pool_said"], tuple(r["pool"])) for r in rows if "pool" in r}
    first = next(iter(asked.values()), ("", ()))
    same = [label for label, pool in asked.items() if pool == first]  # other candidates are another question
    if len(same) < 2:
        return {}
    return {name: _of_metric({label: _mean(folders[label], name) for label in same}, baseline) for name in first[1]}


def _of_metric(values: Mapping[str, Grouped], baseline: str) -> dict[str, Any]:
    users = max(len(g.values) for g in values.values())
    found = resampled_means({label: g for label, g in values.items() if len(g.values) == users}, resamples=RESAMPLES)
    order = sorted(found.values, key=lambda label: -found.values[label])
    rows: dict[str, Any] = {}
    for label in order:
        rows[label] = {"value": found.values[label]}
        others = [other for other in order if other != label]
        if baseline in others:
            rows[label]["baseline"] = difference(found, label, baseline)
        if others:
            rows[label]["best_other"] = difference(found, label, others[0])
    return rows


def _mean(folders: Sequence[Path], name: str) -> Grouped:
    """A metric's mean over seeds in the lists of each user."""
    parts = [kept(folder, f"pool-{name}") for folder in folders]  # [2, users] each
    return Grouped(np.mean([p[0] for p in parts], axis=0), parts[0][1])


def difference(found: Resampled, a: str, b: str) -> dict[str, Any]:
    """Metric of a minus metric of b, with its interval, as a record has it."""
    return {"row": b, **{k: round(v, 6) for k, v in asdict(found.difference(a, b, LEVEL)).items()}}
