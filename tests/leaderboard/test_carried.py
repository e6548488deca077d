"""A record keeps rows whose run folders are on another machine, and nothing that is no longer true of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from prerank.leaderboard import leaderboard


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
