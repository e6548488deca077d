"""A record keeps rows whose run folders are on another machine, and nothing that is no longer true of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import yaml
from sklearn.metrics import roc_auc_score

from prerank.leaderboard import leaderboard
from prerank.leaderboard.state import State


def play(path: Path, tmp_path: Path, **options) -> dict:
    return leaderboard(path, out=tmp_path / "out.json", runs=tmp_path / "runs", **{"measure": False, **options})


def labels(record: dict) -> dict[str, str]:
    return {row["label"]: row["status"] for row in record["rows"]}


def third(tmp_path: Path) -> list[dict]:
    return [{"config": str(tmp_path / "dssm.yaml"), "label": "DSSM"}, {"config": str(tmp_path / "mf.yaml"), "label": "MF"},
            {"config": str(tmp_path / "mf.yaml"), "label": "MF4", "set": {"model.width": 4}}]  # fmt: skip


def test_without_run_folders_everything_stands(board, tmp_path, trained):
    path = board()
    first = play(path, tmp_path, measure=True)
    shutil.rmtree(tmp_path / "runs")
    trained.clear()
    again = play(path, tmp_path, measure=True, train=False)
    assert trained == []
    for key in ("compared", "trainings", "latency", "objectives"):
        assert again[key] == first[key]
    for before, now in zip(first["rows"], again["rows"], strict=True):
        assert now.pop("machine")["torch"] == first["versions"]["torch"]
        assert now == before
    text = (tmp_path / "out.md").read_text()
    assert "Trained elsewhere, on " in text
    assert text.count("DSSM, MF.") == 1


def test_a_new_row_joins_and_is_compared_with_what_is_here(board, tmp_path, trained):
    first = play(board(), tmp_path)
    shutil.rmtree(tmp_path / "runs")
    trained.clear()
    path = board(rows=third(tmp_path))
    alone = play(path, tmp_path, only="MF4")
    assert trained == ["MF4 #0", "MF4 #1"]
    assert set(labels(alone).values()) == {"finished"}
    rows = alone["compared"]["click"]["rows"] if "click" in alone["compared"] else first["compared"]["click"]["rows"]
    assert rows["MF"]["baseline"] == first["compared"]["click"]["rows"]["MF"]["baseline"]
    assert "baseline" not in rows.get("MF4", {})  # DSSM's logits are elsewhere
    trained.clear()
    both = play(path, tmp_path, only="DSSM")
    assert trained == ["DSSM #0", "DSSM #1"]
    found = both["compared"]["click"]["rows"]
    assert found["MF4"]["baseline"]["row"] == "DSSM"
    assert found["MF"]["baseline"] == first["compared"]["click"]["rows"]["MF"]["baseline"]  # the same trainings as before
    order = sorted(found, key=lambda label: -found[label]["auc_of_mean"])
    assert list(found) == order
    for label, said in found.items():  # whoever is named as the best other is the best other
        assert said.get("best_other", {"row": None})["row"] in (None, next(o for o in order if o != label))
    everything = play(path, tmp_path)
    whole = everything["compared"]["click"]
    assert {label: said["baseline"] for label, said in whole["rows"].items() if label != "DSSM"} == {
        label: said["baseline"] for label, said in found.items() if label != "DSSM"
    }
    assert len(whole["best_two_tower"]["against"]) == 2


def test_a_row_whose_settings_changed_does_not_stand(board, tmp_path, trained):
    path = board()
    play(path, tmp_path)
    shutil.rmtree(tmp_path / "runs")
    raw = yaml.safe_load((tmp_path / "mf.yaml").read_text())
    (tmp_path / "mf.yaml").write_text(yaml.safe_dump({**raw, "model": {"name": "mf", "width": 4}}))
    record = play(path, tmp_path, train=False)
    assert labels(record) == {"DSSM": "finished", "MF": "not run"}
    assert "MF" not in record["compared"].get("click", {"rows": {}})["rows"]
    assert record["compared"].get("click", {"best_two_tower": None})["best_two_tower"] is None


def test_more_seeds_elsewhere_are_more_than_one_here(board, tmp_path, trained):
    path = board()
    play(path, tmp_path)
    for folder in (tmp_path / "runs").glob("*-1"):
        shutil.rmtree(folder)
    record = play(path, tmp_path, train=False)
    assert [len(row["seeds"]) for row in record["rows"]] == [2, 2]
    record = play(path, tmp_path, train=False, seeds=1)  # asked for one seed, it says what one seed gives
    assert [len(row["seeds"]) for row in record["rows"]] == [1, 1]
    assert all("machine" not in row for row in record["rows"])


def drawn_otherwise(tmp_path: Path) -> None:
    """What a training of the same settings would be on another machine: the same names, other logits."""
    for path in (tmp_path / "runs").glob("*/test-logits.npy"):
        z = np.load(path)
        np.save(path, z + np.random.default_rng(len(path.parent.name)).normal(size=z.shape).astype(np.float32))
        state = json.loads((path.parent / "leaderboard.json").read_text())
        y = np.load(path.parent / "test-labels.npy")[:, 0]
        state["measured"]["test"]["click"]["auc"] = float(roc_auc_score(y, np.load(path)[:, 0]))
        (path.parent / "leaderboard.json").write_text(json.dumps(state))


def test_the_same_settings_with_other_figures_are_compared_anew(board, tmp_path, trained):
    path = board(rows=third(tmp_path))
    first = play(path, tmp_path)
    shutil.copytree(tmp_path / "runs", tmp_path / "elsewhere")
    drawn_otherwise(tmp_path)
    for folder in (tmp_path / "runs").glob("*-mf-*"):  # MF and MF4 are away, DSSM was trained here and ended otherwise
        shutil.rmtree(folder)
    mixed = play(path, tmp_path, train=False)["compared"]["click"]["rows"]
    was = first["compared"]["click"]["rows"]
    assert all("baseline" not in said for said in mixed.values())  # DSSM is another one now
    assert mixed["MF"]["auc_of_mean"] == was["MF"]["auc_of_mean"]
    assert all(said.get("best_other", {"row": "MF"})["row"] in ("MF", "MF4") for said in mixed.values())
    shutil.rmtree(tmp_path / "runs")
    shutil.copytree(tmp_path / "elsewhere", tmp_path / "runs")
    drawn_otherwise(tmp_path)
    record = play(path, tmp_path, train=False)
    (tmp_path / "out.json").unlink()
    assert record["compared"] == play(path, tmp_path, train=False)["compared"]  # as if there had been no record


def test_latencies_are_kept_and_those_that_lack_are_measured(board, tmp_path, trained):
    path = board(seeds=1)
    first = play(path, tmp_path, measure=True)
    shutil.move(tmp_path / "runs", tmp_path / "elsewhere")
    kept = play(path, tmp_path, train=False)
    assert [row["latency"] for row in kept["rows"]] == [row["latency"] for row in first["rows"]]
    path = board(seeds=1, rows=third(tmp_path))
    play(path, tmp_path, only="MF4")
    assert [row["latency"] is None for row in play(path, tmp_path, train=False)["rows"]] == [False, False, True]
    out = tmp_path / "out.json"
    record = json.loads(out.read_text())
    record["latency"]["machine"]["cpu"] = "another"
    out.write_text(json.dumps(record))
    play(path, tmp_path, train=False)
    assert "Scoring was measured on " in (tmp_path / "out.md").read_text()
    measured = play(path, tmp_path, train=False, measure=True)
    assert all(row["latency"] for row in measured["rows"])
    assert measured["latency"]["fresh"] == ["DSSM", "MF"]  # their weights are elsewhere; time asks for shapes
    assert measured["latency"]["machine"]["cpu"] == kept["latency"]["machine"]["cpu"]
    assert "Scoring was measured on " not in (tmp_path / "out.md").read_text()


def test_what_the_board_says_of_a_row_is_said_of_a_carried_one(board, tmp_path, trained):
    play(board(), tmp_path)
    shutil.rmtree(tmp_path / "runs")
    rows = [{"config": str(tmp_path / "dssm.yaml"), "label": "DSSM"},
            {"config": str(tmp_path / "mf.yaml"), "label": "MF", "kind": "ranker", "set": {"leaky": "it reads the answers"}}]  # fmt: skip
    record = play(board(rows=rows, seeds=3), tmp_path, train=False)
    mf = record["rows"][1]
    assert (mf["kind"], mf["leaky"], mf["status"], len(mf["seeds"])) == ("ranker", "it reads the answers", "partial", 2)
    assert "MF **LEAKY**" in (tmp_path / "out.md").read_text()
    record = play(board(rows=rows, seeds=3, baseline="MF"), tmp_path, train=False)
    said = record["compared"]["click"]["rows"]
    assert {label: set(of) for label, of in said.items()} == {label: {"auc_of_mean", "best_other"} for label in ("DSSM", "MF")}


def test_what_goes_wrong_here_is_told_beside_the_figures(board, tmp_path, trained):
    play(board(), tmp_path)
    for folder in (tmp_path / "runs").glob("*-mf-*"):
        shutil.rmtree(folder)
        State("diverged", "training diverged in epoch 1, batch 2: loss is nan").write(folder)
    play(board(), tmp_path, train=False)
    assert "MF: finished: seed 0: training diverged in epoch 1, batch 2" in (tmp_path / "out.md").read_text()
