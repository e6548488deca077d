"""A board of two small models on a planted log."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from prerank.leaderboard import pool
from prerank.leaderboard.pool import Job, Watcher
from prerank.leaderboard.worker import Events, work
from tests.training.conftest import planted_log, settings

MODELS: dict[str, dict[str, Any]] = {"mf": {"name": "mf", "width": 8}, "dssm": {"name": "dssm", "hidden": [16], "width": 8}}


def write(folder: Path, **board: Any) -> Path:
    """A board over configs in `folder`, mf.yaml and dssm.yaml."""
    raw = {"title": "Planted", "protocol": "random 70/10/20", "baseline": "DSSM", "seeds": 2,
           "rows": [{"config": str(folder / "dssm.yaml"), "label": "DSSM"},
                    {"config": str(folder / "mf.yaml"), "label": "MF"}], **board}  # fmt: skip
    path = folder / "planted.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.fixture
def board(tmp_path: Path) -> Callable[..., Path]:
    """Writes a board into the test's folder; its log and configs are there."""
    planted_log(4000, 60, 40).write_parquet(tmp_path / "log.parquet")
    for name, model in MODELS.items():
        raw = settings(tmp_path, model=model, **{"training.epochs": 1})
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(raw))
    return lambda **changes: write(tmp_path, **changes)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trainings are done in this process, one after another; names of those that were."""
    done: list[str] = []

    def run(jobs: list[Job], processes: int, watcher: Watcher) -> None:
        for job in jobs:
            done.append(job.name)
            watcher.started(job)
            watcher.ended(job, work(job.config, Events(io.StringIO())))

    monkeypatch.setattr(pool, "run", run)
    return done
