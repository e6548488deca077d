"""Training on lists: it learns, resumes inside an epoch bit for bit, and is judged in the pool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from prerank.config import Config, ConfigError, parse
from prerank.run import train
from prerank.training import offline
from tests.training.conftest import planted_log, settings

LISTS = {"by": "user", "max_length": 60, "stages": {"impression": "all", "random": {"ratio": 0.5, "popularity": 0.75}}}
POOL = {"by": "user", "stages": {"impression": "all", "random": 40}, "at": [5, 10]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planted")
    planted_log(8000, 80, 100).write_parquet(path / "log.parquet")
    return path


def config(folder: Path, out: Path, **changes: Any) -> Config:
    given = {
        "objective": [{"loss": "softmax"}, {"loss": "logloss", "stages": ["impression"], "weight": 0.5}],
        "evaluation": POOL,
        "training.lists": LISTS,
        "training.batch_size": 16,
        "training.monitor": "ndcg@10",
        "training.epochs": 4,
        "output": str(out),
    }
    return parse(settings(folder, **{**given, **changes}))


class Said:
    """A progress that remembers what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def step(self, epoch: int, step: int, steps: int, rows: int, loss: float) -> None: ...

    def say(self, text: str) -> None:
        self.lines.append(text)

    def close(self) -> None: ...


def test_lists_are_learned_and_the_pool_chooses_the_epoch(folder: Path, tmp_path: Path) -> None:
    progress = Said()
    run, result = train(config(folder, tmp_path / "run"), progress=progress)
    last = result.history[-1]
    assert {"softmax", "logloss", "validation_auc", "validation_recall@5", "validation_ndcg@5", "validation_recall@10"} <= set(last)
    best = max(entry["validation_ndcg@10"] for entry in result.history)
    assert result.best == best == result.history[result.best_epoch - 1]["validation_ndcg@10"]
    assert last["validation_auc"] > 0.6
    assert any("lists by user: 80 of up to 60 candidates" in line for line in progress.lines)
    assert result.rows == sum(min(60, n + -(-n // 2)) for n in _impressions(run.dataset)) * len(result.history)


def test_a_pool_that_chooses_nothing_is_not_asked_each_epoch(folder: Path, tmp_path: Path) -> None:
    run, result = train(config(folder, tmp_path / "run", **{"training.monitor": "auc", "training.epochs": 1}))
    assert not [name for name in result.history[0] if "@" in name]
    assert run.retrieve(run.pool("test")).metrics["recall@10"].value > 0


def _impressions(dataset: Any) -> list[int]:
    """Different items that each user was shown in train."""
    rows = dataset.rows("train")
    return [len(np.unique(dataset.item_row[rows[dataset.user_row[rows] == u]])) for u in np.unique(dataset.user_row[rows])]


def test_stopped_inside_an_epoch_and_resumed_equals_uninterrupted(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {
        "training.epochs": 2,
        "training.checkpoint_seconds": 1e-9,
        "model": {"name": "dssm", "hidden": [16], "width": 8, "dropout": 0.2},
    }
    train(config(folder, tmp_path / "whole", **changes))
    steps, real = [0], offline.train_step

    def dies(*args: Any, **options: Any) -> Any:
        steps[0] += 1
        if steps[0] == 9:
            raise RuntimeError("killed")
        return real(*args, **options)

    monkeypatch.setattr(offline, "train_step", dies)
    with pytest.raises(RuntimeError, match="killed"):
        train(config(folder, tmp_path / "cut", **changes))
    monkeypatch.undo()
    train(config(folder, tmp_path / "cut", **changes), resume=True)
    whole, cut = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "cut"))
    assert all(np.array_equal(whole[k].numpy(), cut[k].numpy()) for k in whole)


def test_what_must_be_there_is_said_before_data_is_read(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training.lists.by: request needs data.request"):
        train(config(folder, tmp_path / "a", **{"training.lists": {"by": "request"}}))
    features = [{"name": "user", "side": "user"}, {"name": "hour", "column": "group", "side": "context"}, {"name": "item", "side": "item"}]
    changes = {"training.lists": None, "objective": [{"loss": "logloss"}], "data.features": features}
    with pytest.raises(ConfigError, match=r"evaluation.by: user: context features vary inside a user's list: hour"):
        train(config(folder, tmp_path / "a", **changes))
    assert not (tmp_path / "a").exists()
    for change in ({"evaluation": None}, {"evaluation": {**POOL, "at": [5]}}):
        with pytest.raises(ConfigError, match=r"training.monitor: 'ndcg@10' needs 10 in evaluation.at"):
            config(folder, tmp_path / "a", **change)
