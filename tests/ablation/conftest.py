"""An ablation of a small two-tower on a planted log, whose runs are done in this process."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from prerank.ablation.worker import work
from prerank.leaderboard import pool
from prerank.leaderboard.pool import Job, Watcher
from prerank.leaderboard.worker import Events

SYNERGY: dict[str, Any] = {
    "cas": {"skip_input": False},
    "cts": {"decay": 0.9, "negatives": True, "inputs": "vector_count_age"},
    "cms": {"mode": "mean", "inputs": "vector_count_age", "ranker": {"name": "dcnv2", "layers": 1, "hidden": [8], "norm": False}},
}


def log(folder: Path, rows: int = 1500) -> None:
    """Users with tastes, items with worths; the last users are new in the test part."""
    random = np.random.default_rng(1)
    users, items = random.integers(0, 40, rows), random.integers(0, 20, rows)
    users[-100:] += 40
    taste, worth = random.normal(size=80), random.normal(size=20)
    y = random.random(rows) < 1 / (1 + np.exp(-2 * (taste[users] + worth[items])))
    frame = pl.DataFrame({"user": users, "item": items, "ts": 1_650_000_000_000 + 60_000 * np.arange(rows), "y": y.astype(np.int64)})
    frame.write_parquet(folder / "log.parquet")


def settings(folder: Path) -> dict[str, Any]:
    """Of a plain backbone."""
    return {
        "name": "toy", "output": str(folder / "run"),
        "data": {"log": str(folder / "log.parquet"), "user_id": "user", "item_id": "item", "time": "ts", "width": 4,
                 "labels": {"y": {"column": "y"}}, "split": {"kind": "time", "validation": 0, "test": 0.3}, "cache": str(folder / "cache"),
                 "features": [{"name": "user", "side": "user"}, {"name": "item", "side": "item"}]},
        "model": {"name": "dssm", "hidden": [8], "width": 4, "norm": False, "similarity": "dot", "id_head": 2},
        "training": {"batch_size": 64, "optimizer": {"groups": [{"match": "*ids*", "lr": 0.05, "rowwise": True}]}},
    }  # fmt: skip


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., Path]:
    """Writes an ablation file into the test's folder; its log and its backbone's config are there."""
    log(tmp_path)
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings(tmp_path)))

    def write(**changes: Any) -> Path:
        raw = {"title": "Toy", "protocol": "one pass", "seeds": 2, "synergy": SYNERGY,
               "backbones": [{"config": str(tmp_path / "toy.yaml"), "label": "DSSM"}], **changes}  # fmt: skip
        path = tmp_path / "toy-plan.yaml"
        path.write_text(yaml.safe_dump(raw))
        return path

    return write


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs are done in this process, one after another; names of those that were."""
    names: list[str] = []

    def run(jobs: list[Job], processes: int, watcher: Watcher, command: Sequence[str]) -> None:
        for job in jobs:
            names.append(job.name)
            watcher.started(job)
            watcher.ended(job, work(job.config, Events(io.StringIO())))

    monkeypatch.setattr(pool, "run", run)
    return names
