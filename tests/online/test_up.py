"""The whole system, small: real processes, and a world whose truth is known."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

import numpy as np
import pytest

from prerank.config import ConfigError, Data
from prerank.datasets import resolve
from prerank.online.living import LivingWorld
from prerank.online.report import said, table, write
from prerank.online.up import up
from prerank.stream import open_log


@pytest.mark.slow  # real time goes by
def test_everything_runs_and_the_model_learns_of_what_was_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRERANK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = tmp_path / "up"
    report = up(folder, minutes=0.25, rate=10, users=200, items=200)
    assert report["failed"] == 0
    assert report["trainer"]["rows"] > 300
    assert report["trainer"]["skipped"] == 0
    assert (report["intervals"][-1]["generation"], report["intervals"][-1]["sequence"]) > (1, 0)  # what was learned is served
    assert report["trainer"]["update_delay"] < 60
    last = report["last"]
    assert last["blind"] < last["online"] <= last["best"]
    assert json.loads((folder / "report.json").read_text())["last"] == last
    events = open_log(f"sqlite:///{folder / 'events.db'}")
    asked = sum(i["requests"] for i in report["intervals"])
    assert events.end(0) >= 10 * asked  # every request that was answered is in the log
    events.close()
    assert len(report["freshness"]) > 2
    assert 0 < min(report["freshness"]) <= max(report["freshness"]) < 60
    assert sum(arm["requests"] for arm in last["arms"].values()) == last["requests"]
    assert all(report["trainers"][name]["rows"] > 300 for name in ("backbone", "cs3", "ranking"))
    assert report["test"]["rows"].keys() == {"backbone", "cs3"}  # each answer says its arm, and so does each row
    assert 0 < report["test"]["sample_ratio"] <= 1
    assert (folder / "abtest/abtest.html").exists()
    retrained = report["retrained"]
    assert last["blind"] < retrained["utility"] < last["best"]
    assert abs(retrained["requests"] - last["requests"]) <= 32  # one loop's, at the edge of an interval
    assert retrained["rows"] > 50 * 200 + 300
    text = table(report).markdown()
    assert "learning online" in text
    assert "retrained from scratch" in text
    assert [p.name for p in write(report, tmp_path)] == ["report.html", "up.png", "freshness.png"]
    page = (tmp_path / "report.html").read_text()
    assert page.count("<img") == 2
    assert all(escape(line) in page for line in said(report))
    with pytest.raises(ConfigError, match="holds a system already; replace it with --overwrite"):
        up(folder, minutes=0.1)


def test_the_living_world_is_the_one_that_drew_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRERANK_CACHE", str(tmp_path))
    options = {"users": 60, "items": 80, "impressions": 3000, "drift": 0.0, "days": 2}
    folder = Path(resolve(Data.model_validate({"recipe": "simulated", "options": options})).log or "").parent
    world = LivingWorld(folder, drift=1.0, seconds=100, candidates=20)
    asked = world.ask(300)
    assert all(len(set(items)) == 20 for items in asked.items.tolist())
    begin, end = world.truth(asked, 0.0), world.truth(asked, 100.0)
    assert begin.min() > 0
    assert begin.max() < 1
    vectors = world.planted.user_vector[asked.user]
    assert np.allclose(world.truth(asked, 0.0), begin)
    assert not np.allclose(begin, end)
    assert np.abs(np.corrcoef(begin.ravel(), end.ravel())[0, 1]) < 0.5  # a quarter turn: tastes have nothing left of what they were
    assert vectors.shape[1] == 4


def test_a_world_of_fewer_items_than_candidates_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRERANK_CACHE", str(tmp_path))
    options = {"users": 20, "items": 30, "impressions": 500, "drift": 0.0, "days": 2}
    folder = Path(resolve(Data.model_validate({"recipe": "simulated", "options": options})).log or "").parent
    assert sorted(LivingWorld(folder, drift=0.0, seconds=1, candidates=30).ask(1).items[0].tolist()) == list(range(30))
    with pytest.raises(ConfigError, match="candidates: must be at most the items of the world, 30; got 31"):
        LivingWorld(folder, drift=0.0, seconds=1, candidates=31)
