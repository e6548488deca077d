"""The examples run as they stand, in a folder of their own."""

import importlib.util
import re
import runpy
from pathlib import Path

import polars as pl
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRERANK_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("_elsewhere")
def test_quickstart(capsys, tmp_path):
    runpy.run_path(str(EXAMPLES / "quickstart.py"), run_name="__main__")
    metrics, best = capsys.readouterr().out.splitlines()
    assert float(re.match(r"AUC (\d\.\d+)", metrics)[1]) > 0.65, metrics
    items, probabilities = (part.split(", ") for part in re.match(r"\[(.*)\] \[(.*)\]$", best).groups())
    assert len(items) == len(probabilities) == 3
    assert sorted(map(float, probabilities), reverse=True) == [float(p) for p in probabilities]
    assert (tmp_path / "runs/quickstart/generations/current.json").exists()


@pytest.mark.usefixtures("_elsewhere")
def test_make_logs(tmp_path):
    spec = importlib.util.spec_from_file_location("make_logs", EXAMPLES / "make_logs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.OPTIONS = {"users": 50, "items": 40, "impressions": 500}
    module.main(tmp_path / "shop")
    log, users, items = (pl.read_csv(tmp_path / "shop" / f"{name}.csv") for name in ("impressions", "users", "items"))
    assert (len(log), len(users), len(items)) == (500, 50, 40)
    assert set(log["click"]) == {0, 1}
    assert set(log["user_id"]) <= set(users["user_id"])
    assert set(log["item_id"]) <= set(items["item_id"])
