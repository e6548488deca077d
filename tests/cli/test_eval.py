"""`prerank eval` on a trained run; its numbers are checked in tests/metrics and tests/test_run.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prerank.cli import app
from prerank.config import parse
from prerank.run import train
from tests.training.conftest import planted_log, settings


@pytest.mark.parametrize(("model", "flatters"), [("mf", False), ("history_mf", True)])
def test_train_rows_of_a_model_with_histories_are_marked(tmp_path: Path, model: str, flatters: bool) -> None:
    planted_log(2000, 50, 40).write_parquet(tmp_path / "log.parquet")
    changes = {"model": {"name": model, "width": 8}, "training.epochs": 1, "output": str(tmp_path / "run")}
    train(parse(settings(tmp_path, **changes)))
    said = {}
    for split in ("train", "test"):
        done = CliRunner().invoke(app, ["eval", str(tmp_path / "run"), "--split", split, "--json", "--resamples", "0"])
        assert done.exit_code == 0, done.stderr
        said[split] = json.loads(done.stdout)["leaky"]
    assert said == {"train": "the model's histories hold the train rows' own labels" if flatters else None, "test": None}


def test_the_pool_is_stated_with_its_metrics(tmp_path: Path) -> None:
    planted_log(2000, 50, 40).write_parquet(tmp_path / "log.parquet")
    pool = {"by": "user", "stages": {"impression": "all", "random": 10}, "at": [5]}
    train(parse(settings(tmp_path, evaluation=pool, **{"training.epochs": 1, "output": str(tmp_path / "run")})))
    done = CliRunner().invoke(app, ["eval", str(tmp_path / "run"), "--json", "--resamples", "20"])
    assert done.exit_code == 0, done.stderr
    ranking = json.loads(done.stdout)["ranking"]
    assert ranking["pool"].endswith("impression all, random 10, without the items of the user's train rows")
    for name in ("recall@5", "ndcg@5"):
        low, high = ranking["metrics"][name]["interval"]
        assert low <= ranking["metrics"][name]["value"] <= high
    done = CliRunner().invoke(app, ["eval", str(tmp_path / "run"), "--resamples", "0"])
    assert "recall@5" in done.stdout
