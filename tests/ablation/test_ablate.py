"""An ablation from its file to its record: what is measured, what is not repeated, what is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from prerank.ablation import ablate, load
from prerank.config import ConfigError
from prerank.leaderboard.state import kept
from prerank.metrics import kendall, paired

VARIANTS = ["plain", "cas+cts+cms", "count and age", "ranking model"]


def play(path: Path, tmp_path: Path, **options) -> dict:
    return ablate(path, out=tmp_path / "out" / "toy.json", runs=tmp_path / "runs", **{"measure": False, **options})


def few(tmp_path: Path) -> list[dict]:
    return [{"config": str(tmp_path / "toy.yaml"), "label": "DSSM", "variants": VARIANTS}]


def test_the_record_is_what_the_runs_give(plan, tmp_path, done):
    path = plan(backbones=few(tmp_path))
    record = play(path, tmp_path, measure=True)
    assert done == [f"DSSM, {v} #{s}" for s in (0, 1) for v in VARIANTS]  # every variant once before any twice
    assert record == json.loads((tmp_path / "out/toy.json").read_text())
    folders = {c.variant: [Path(c.entry.seeded(s, tmp_path / "runs").output) for s in (0, 1)] for c in load(path)[1]}
    first = folders["plain"][0]
    y, users = kept(first, "labels")[:, 0], kept(first, "users")
    rows = {row["variant"]: row for row in record["rows"]}
    for protocol in ("prequential", "frozen"):
        mean = {v: np.mean([kept(f, protocol)[:, 0] for f in folders[v]], axis=0, dtype=np.float64) for v in VARIANTS}
        for v in VARIANTS:
            assert rows[v][protocol]["y"]["auc"] == pytest.approx([roc_auc_score(y, kept(f, protocol)[:, 0]) for f in folders[v]])
        found = record["compared"]["DSSM"][protocol]
        for against in ("plain", "count and age", "ranking model"):
            expected = paired(mean["cas+cts+cms"], mean[against], y, groups=users, level=0.99)
            told = found["auc"]["y"]["cas+cts+cms"][against]
            assert [told[k] for k in ("value", "low", "high")] == pytest.approx([expected.value, expected.low, expected.high], abs=1e-6)
        tau = kendall(mean["plain"], mean["ranking model"], groups=users).value
        assert found["tau"]["plain"]["value"] == pytest.approx(tau, abs=1e-6)
        cold = found["slices"]["cold users"]
        seen = kept(first, "user-events")[:, 0 if protocol == "prequential" else 1] <= 3
        assert cold["rows"] == seen.sum() > 50
        assert cold["auc"]["plain"]["value"] == pytest.approx(roc_auc_score(y[seen], mean["plain"][seen]), abs=1e-6)
        users_of = [part["rows"] for name, part in found["slices"].items() if "users" in name]
        assert sum(users_of) == len(y)  # every row's user has one length of history
    assert rows["plain"]["parameters"] < rows["cas+cts+cms"]["parameters"]
    assert rows["plain"]["flops"] < rows["cas+cts+cms"]["flops"]
    assert (rows["plain"]["memory_bytes"], rows["ranking model"]["flops"]) == (0, None)
    assert rows["cas+cts+cms"]["latency"]["1000"]["p50_ms"] > 0
    text = (tmp_path / "out/toy.md").read_text()
    for said in ("one pass", "count and age", "minus the ranking model", "AUC lost to noise 0.1", "times plain"):
        assert said in text
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == ["ablation-toy-plan-dssm-gains.png", "ablation-toy-plan-dssm.png"]


@pytest.mark.slow
def test_runs_are_processes_of_their_own(plan, tmp_path):
    """The pool, the worker, and that a second call finds what the first did."""
    path = plan(backbones=[{**few(tmp_path)[0], "variants": ["plain"]}], seeds=2)
    record = play(path, tmp_path, jobs=2)
    states = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").glob("*/leaderboard.json")}
    assert (len(states), record["rows"][0]["seeds"]) == (2, [0, 1])
    assert play(path, tmp_path)["rows"] == record["rows"]
    assert states == {p: p.stat().st_mtime_ns for p in states}
    assert not list((tmp_path / "runs").glob("*/checkpoint"))


def test_what_is_finished_is_not_repeated(plan, tmp_path, done, monkeypatch):
    path = plan(backbones=few(tmp_path), seeds=1)
    first = play(path, tmp_path)
    done.clear()
    monkeypatch.setattr("prerank.ablation.summary.compared", None)  # neither is compared again what has not changed
    assert play(path, tmp_path)["compared"] == first["compared"]
    assert done == []
    monkeypatch.undo()


def test_a_backbone_that_changed_is_compared_again_and_others_are_not(plan, tmp_path, done, monkeypatch):
    from prerank.ablation import summary

    two = [{**few(tmp_path)[0], "label": label, "variants": ["plain", "cts"]} for label in ("DSSM", "other")]
    two[1]["set"] = {"model.width": 3}
    play(plan(backbones=two, seeds=1), tmp_path)
    compared, asked = summary.compared, []
    monkeypatch.setattr(summary, "compared", lambda runs, cold: asked.append(runs[0].cell.backbone) or compared(runs, cold))
    two[1]["variants"] = ["plain", "cts", "cms"]
    play(plan(backbones=two, seeds=1), tmp_path)
    assert asked == ["other"]


def test_a_changed_setting_is_run_again_and_others_stand(plan, tmp_path, done):
    play(plan(backbones=few(tmp_path), seeds=1), tmp_path, only="plain")
    assert done == ["DSSM, plain #0"]
    done.clear()
    backbones = [{**few(tmp_path)[0], "synergy": {"cts": {"decay": 0.5}}}]
    record = play(plan(backbones=backbones, seeds=1), tmp_path)
    assert done == ["DSSM, cas+cts+cms #0", "DSSM, count and age #0", "DSSM, ranking model #0"]
    assert record["rows"][1]["set"]["synergy"]["cts"]["decay"] == 0.5


def test_noise_blurs_what_the_towers_read(plan, tmp_path, done, monkeypatch):
    monkeypatch.setattr("prerank.ablation.measure.NOISE", 100.0)
    record = play(plan(backbones=[{**few(tmp_path)[0], "variants": ["plain"]}], seeds=1), tmp_path)
    row = record["rows"][0]
    assert abs(row["noisy"]["y"][0] - 0.5) < abs(row["frozen"]["y"]["auc"][0] - 0.5) - 0.1
    assert record["compared"]["DSSM"]["frozen"]["tau"] == {}  # without a ranking model there is none to agree with


def test_a_run_that_diverges_is_in_the_record(plan, tmp_path, done):
    set_ = {"training.optimizer": {"lr": 1e30}}
    record = play(plan(backbones=[{**few(tmp_path)[0], "variants": ["plain"], "set": set_}], seeds=1), tmp_path)
    assert "diverged" in record["rows"][0]["why"][0]
    assert "diverged" in (tmp_path / "out/toy.md").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sedes": 3}, "unknown key 'sedes'; did you mean 'seeds'?"),
        ({"synergy": {"cts": {"decay": 2}}}, "backbone 'DSSM': .*synergy.cts.decay: Input should be less than 1"),
        ({"more": {"plain": {"cas": {}}}}, "more: 'plain' is the name of a variant that is there anyway"),
        ({"backbones": [{"config": "HERE", "label": "DSSM", "variants": ["cts"]}]}, "'plain' is what the others are compared with"),
        (
            {"backbones": [{"config": "HERE", "label": "DSSM", "variants": ["plain", "ctx"]}]},
            "variants: 'ctx' is none; there are plain",
        ),
        ({"backbones": [{"config": "HERE", "label": "DSSM"}] * 2}, "backbones: label 'DSSM' stands twice"),
        ({"backbones": []}, "backbones: Tuple should have at least 1 item"),
    ],
)
def test_what_is_wrong_is_named(plan, tmp_path, changes, message):
    for backbone in changes.get("backbones", ()):
        backbone["config"] = str(tmp_path / "toy.yaml")
    with pytest.raises(ConfigError, match=message):
        load(plan(**changes))


def test_only_must_name_a_cell(plan, tmp_path, done):
    with pytest.raises(ConfigError, match="--only 'nothing': no cell contains it; cells: DSSM, plain; DSSM, cas;"):
        play(plan(), tmp_path, only="nothing")
