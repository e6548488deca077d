"""A board from its file to its record: what is measured, what is not repeated, what goes wrong and is said."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from prerank.config import ConfigError
from prerank.leaderboard import leaderboard, load
from prerank.leaderboard.state import kept, known
from prerank.metrics import paired, rela_impr
from tests.training.conftest import planted_log


def states(runs: Path) -> dict[str, int]:
    """Finished trainings and when they were written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in runs.glob("*/leaderboard.json")}


def play(path: Path, tmp_path: Path, **options) -> dict:
    return leaderboard(path, out=tmp_path / "out.json", runs=tmp_path / "runs", **{"measure": False, **options})


def test_the_record_is_what_the_runs_give(board, tmp_path, trained):
    path = board(bars=[{"label": "theirs", "auc": 0.9, "logloss": 0.3, "source": "a paper"}])
    record = play(path, tmp_path, measure=True)
    assert trained == ["DSSM #0", "MF #0", "DSSM #1", "MF #1"]  # every row once before any twice
    assert record == json.loads((tmp_path / "out.json").read_text())
    folders = {entry.label: [Path(entry.seeded(seed, tmp_path / "runs").output) for seed in (0, 1)] for entry in load(path)[1]}
    labels, users = kept(folders["MF"][0], "labels")[:, 0], kept(folders["MF"][0], "users")
    mean = {}
    for row in record["rows"]:
        logits = [kept(folder, "logits")[:, 0] for folder in folders[row["label"]]]
        mean[row["label"]] = np.mean(logits, axis=0)
        assert row["status"] == "finished"
        assert row["test"]["click"]["auc"] == pytest.approx([roc_auc_score(labels, z) for z in logits])
        assert row["latency"]["1000"]["p50_ms"] <= row["latency"]["1000"]["p99_ms"]
        assert list(row["latency"]) == ["100", "300", "1000", "3000", "10000"]
    expected = paired(mean["MF"], mean["DSSM"], labels, groups=users, resamples=1000, level=0.99)
    found = record["compared"]["click"]["rows"]["MF"]["baseline"]
    assert (found["row"], found["value"], found["low"], found["high"]) == (
        "DSSM", pytest.approx(expected.value, abs=1e-6), pytest.approx(expected.low, abs=1e-6), pytest.approx(expected.high, abs=1e-6)
    )  # fmt: skip
    assert "baseline" not in record["compared"]["click"]["rows"]["DSSM"]
    best = record["compared"]["click"]["best_two_tower"]
    assert {best["row"], *(one["row"] for one in best["against"])} == {"MF", "DSSM"}
    dssm, mf = (statistics.fmean(r["test"]["click"]["auc"]) for r in record["rows"])
    text = (tmp_path / "out.md").read_text()
    assert f"{100 * rela_impr(mf, dssm):.2f}" in text
    for said in ("theirs", "a paper", "k = 10,000", "not passed" if best["against"][0]["low"] <= 0 else "passed", "random 70/10/20"):
        assert said in text


def test_what_is_finished_is_not_repeated_and_a_changed_config_is(board, tmp_path, trained, monkeypatch):
    path = board(seeds=1)
    first = play(path, tmp_path, measure=True)
    before = states(tmp_path / "runs")
    trained.clear()
    monkeypatch.setattr("prerank.leaderboard.summary.compared", None)  # neither is compared again what has not changed
    monkeypatch.setattr("prerank.leaderboard.latency.measure", None)
    again = play(path, tmp_path, measure=True)
    assert trained == []
    assert [r["latency"] for r in again["rows"]] == [r["latency"] for r in first["rows"]]
    assert states(tmp_path / "runs") == before
    monkeypatch.undo()


def test_a_changed_config_is_trained_again(board, tmp_path, trained):
    path = board(seeds=1)
    play(path, tmp_path)
    trained.clear()
    raw = yaml.safe_load((tmp_path / "mf.yaml").read_text())
    (tmp_path / "mf.yaml").write_text(yaml.safe_dump({**raw, "model": {"name": "mf", "width": 4}}))
    record = play(path, tmp_path)
    assert trained == ["MF #0"]
    parameters = {row["label"]: row["parameters"] for row in record["rows"]}
    assert parameters["MF"] == sum((n + 3) * (4 + 1) for n in (60, 40)) + 1  # vectors and biases, and the head's bias
    trained.clear()
    assert len(play(path, tmp_path, seeds=2)["rows"][0]["seeds"]) == 2
    assert trained == ["DSSM #1", "MF #1"]


def test_only_trains_what_it_names_and_writes_all(board, tmp_path, trained):
    record = play(board(seeds=1), tmp_path, only="mf")
    assert trained == ["MF #0"]
    assert [(row["label"], row["status"]) for row in record["rows"]] == [("DSSM", "not run"), ("MF", "finished")]
    assert "DSSM" in (tmp_path / "out.md").read_text()
    with pytest.raises(ConfigError, match="--only 'xyz': no row's label or config contains it; rows: DSSM, MF"):
        play(board(seeds=1), tmp_path, only="xyz")


def test_rows_that_cannot_have_numbers_say_why(board, tmp_path, trained, monkeypatch):
    monkeypatch.delenv("PRERANK_DATA", raising=False)
    monkeypatch.setenv("PRERANK_CACHE", str(tmp_path / "nothing"))
    rows = [{"config": str(tmp_path / "dssm.yaml"), "label": "DSSM"},
            {"config": str(tmp_path / "mf.yaml"), "label": "wild", "set": {"training.optimizer.lr": 1e30}},
            {"config": str(tmp_path / "mf.yaml"), "label": "leaks", "set": {"leaky": "it reads the answers"}},
            {"config": "configs/amazon/dssm.yaml", "label": "Amazon"}]  # fmt: skip
    record = play(board(rows=rows, seeds=1), tmp_path)
    assert trained == ["DSSM #0", "wild #0", "leaks #0"]
    by = {row["label"]: row for row in record["rows"]}
    assert by["wild"]["status"] == "diverged"
    assert by["wild"]["why"][0].startswith("seed 0: training diverged in epoch 1, batch ")
    assert "loss is" in by["wild"]["why"][0]
    assert (by["Amazon"]["status"], by["Amazon"]["seeds"]) == ("not run: data not available here", [])
    assert "test" not in by["Amazon"]
    text = (tmp_path / "out.md").read_text()
    assert text.count("leaks **LEAKY**") == 3  # in the quality, the comparison and the cost
    assert "LEAKY: it reads the answers" in text
    (cell,) = [line for line in text.splitlines() if line.startswith("| Amazon")]
    assert "not run: data not available here" in cell
    assert not any(c.isdigit() for c in cell)
    trained.clear()
    play(board(rows=rows, seeds=1), tmp_path)
    assert trained == []  # what diverged would do so again


def test_a_board_whose_data_are_not_here_has_its_table_without_numbers(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parent.parent.parent)
    monkeypatch.delenv("PRERANK_DATA", raising=False)
    monkeypatch.setenv("PRERANK_CACHE", str(tmp_path / "nothing"))
    record = play(Path("configs/leaderboards/amazon.yaml"), tmp_path)
    assert [row["status"] for row in record["rows"]] == ["not run: data not available here"] * 2
    rows = [line for line in (tmp_path / "out.md").read_text().splitlines() if "not available here |" in line]
    assert len(rows) == 2
    assert not any(c.isdigit() for row in rows for c in row)


def test_a_typo_in_any_row_is_told_before_anything_is_trained(board, tmp_path, trained):
    rows = [{"config": str(tmp_path / "dssm.yaml"), "label": "DSSM"},
            {"config": str(tmp_path / "mf.yaml"), "label": "MF", "set": {"model.widht": 4}}]  # fmt: skip
    with pytest.raises(ConfigError, match="row 'MF': model 'mf': unknown option 'widht'; did you mean 'width'"):
        play(board(rows=rows), tmp_path)
    assert trained == []


def test_a_table_a_label(board, tmp_path, trained):
    labels = {"click": {"column": "click"}, "odd": {"rule": "kind > 2"}}
    objective = [{"loss": "logloss", "label": label} for label in labels]
    both = {"data.labels": labels, "objective": objective}
    rows = [{"config": str(tmp_path / f"{name}.yaml"), "label": name, "set": both} for name in ("dssm", "mf")]
    record = play(board(rows=rows, baseline="dssm", seeds=1), tmp_path)
    assert record["objectives"] == ["click", "odd"]
    text = (tmp_path / "out.md").read_text()
    assert "**Planted: click**" in text
    assert "**Planted: odd**" in text


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_where_it_stood(board, tmp_path):
    """SIGKILL between two trainings and inside one: the finished one stands, the begun one goes on from its checkpoint."""
    raw = yaml.safe_load((tmp_path / "dssm.yaml").read_text())
    raw["training"] = {**raw["training"], "epochs": 40, "patience": 40, "batch_size": 512}
    (tmp_path / "dssm.yaml").write_text(yaml.safe_dump(raw))
    rows = [{"config": str(tmp_path / "mf.yaml"), "label": "MF"}, {"config": str(tmp_path / "dssm.yaml"), "label": "DSSM"}]
    path, runs = board(rows=rows, seeds=1), tmp_path / "runs"
    command = [sys.executable, "-m", "prerank", "leaderboard", str(path), "--runs", str(runs), "--out", str(tmp_path / "out.json"),
               "--latency", "no"]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        begun = time.monotonic()
        while not (len(states(runs)) == 1 and list(runs.glob("log-dssm-*/checkpoint/current"))):
            assert time.monotonic() - begun < 300
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    before = states(runs)
    (entry,) = [e for e in load(path)[1] if e.label == "DSSM"]
    folder = Path(entry.seeded(0, runs).output)
    assert known(folder) is None
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 0, said
    assert "resumed after epoch" in (folder / "log.txt").read_text()
    assert "1 of 1: DSSM #0" in said
    after = states(runs)
    assert len(after) == 2
    assert {name: after[name] for name in before} == before
    assert not (folder / "checkpoint").exists()


def test_half_a_training_of_other_data_is_begun_again(board, tmp_path, trained, monkeypatch):
    """The log was written anew while a training was under way: its checkpoint is let go, and the row has its numbers."""
    path = board(seeds=1, rows=[{"config": str(tmp_path / "dssm.yaml"), "label": "DSSM"}])
    (entry,) = load(path)[1]
    folder = Path(entry.seeded(0, tmp_path / "runs").output)

    class Stopped(Exception):
        pass

    def stop(self, entry):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr("prerank.leaderboard.worker.Events.epoch", stop)
        with pytest.raises(Stopped):
            play(path, tmp_path)
    assert (folder / "checkpoint").exists()
    planted_log(4100, 60, 40).write_parquet(tmp_path / "log.parquet")
    (row,) = play(path, tmp_path)["rows"]
    assert (row["status"], row["seeds"]) == ("finished", [0])
