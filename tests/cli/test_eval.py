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
