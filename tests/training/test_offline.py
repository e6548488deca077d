"""Epoch training learns what is planted, nothing else, and survives being killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from prerank.config import ConfigError, parse
from prerank.metrics import auc
from prerank.run import open_run, train
from prerank.training import DivergedError, FolderInUseError
from prerank.training.lock import locked
from prerank.training.step import train_step
from tests.training.conftest import planted_log, settings

INTTOWER = {"name": "inttower", "hidden": [32, 16], "heads": 2, "head_width": 8, "dropout": 0.2}


TOWERS = {
    "mf": ({"name": "mf", "width": 8}, {"lr": 0.02, "l2": 3e-5}, 512),
    "dssm": ({"name": "dssm", "hidden": [64, 32], "width": 16}, {"lr": 0.01, "l2": 1e-5}, 1024),
    "inttower": ({"name": "inttower", "hidden": [64, 32], "heads": 2, "head_width": 16, "dropout": 0.1}, {"lr": 0.007, "l2": 1e-5}, 1024),
}


@pytest.mark.parametrize("name", TOWERS)
def test_a_planted_world_is_learned(tmp_path: Path, name: str) -> None:
    """At least 90 % of the AUC gap between popularity (item means) and the true utilities.

    The utilities are an inner product of 3 numbers plus an item bias: a two-tower can express them exactly, so the gap
    that its form allows is the whole gap (that rows are finite is the model's trouble, not a discount).
    The world's size was chosen so that there are rows enough: with 56 train rows a user instead of about 280, MF reached 74 %.
    """
    log = planted_log(80_000, users=200, items=150)
    log.write_parquet(tmp_path / "log.parquet")
    model, optimizer, batch_size = TOWERS[name]
    changes = {"training.epochs": 15, "training.patience": 2, "training.optimizer": optimizer, "training.batch_size": batch_size}
    run, _ = train(parse(settings(tmp_path, model=model, **changes)))
    test, fit = run.dataset.rows("test"), run.dataset.rows("train")
    y, item = log["click"].to_numpy(), log["item"].to_numpy()
    truth = auc(log["utility"].to_numpy()[test], y[test])
    means = (np.bincount(item[fit], y[fit], 150) + 1) / (np.bincount(item[fit], minlength=150) + 2)
    popularity = auc(means[item[test]], y[test])
    z, labels = run.logits("test")
    assert np.array_equal(labels[:, 0], y[test])
    reached = (auc(z[:, 0], y[test]) - popularity) / (truth - popularity)
    assert reached >= 0.90, f"popularity {popularity:.4f}, truth {truth:.4f}, reached {reached:.3f}"


@pytest.mark.parametrize("model", [{"name": "mf", "width": 8}, INTTOWER], ids=["mf", "inttower"])
def test_shuffled_labels_teach_nothing(tmp_path: Path, model: dict[str, object]) -> None:
    planted_log(rows=40_000, shuffled=True).write_parquet(tmp_path / "log.parquet")
    run, _ = train(parse(settings(tmp_path, model=model)))
    z, y = run.logits("test")
    assert auc(z[:, 0], y[:, 0]) == pytest.approx(0.5, abs=0.02)


def start(config: dict[str, object], folder: Path, *extra: str) -> subprocess.Popen[str]:
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = [str(Path(sys.executable).with_name("prerank")), "train", "--config", str(folder / "config.yaml"), *extra]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, process: subprocess.Popen[str], seconds: float = 60) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(planted: Path, tmp_path: Path) -> None:
    model = {**INTTOWER, "id_head": 8, "id_history": True}
    changes = {"model": model, "training.checkpoint_seconds": 0.05, "training.epochs": 3, "training.batch_size": 128,
               "training.average": 0.9,
               "objective": [{"loss": "logloss"}, {"loss": "arf", "lists": "batch", "weight": 0.1}]}  # a term that learns weights
    whole, _ = train(parse(settings(planted, **changes, output=str(tmp_path / "whole"))))
    config = settings(planted, **changes, output=str(tmp_path / "killed"))
    process = start(config, tmp_path)
    marker = tmp_path / "killed" / "checkpoint" / "current"
    wait_for(lambda: marker.exists() and int(marker.read_text() or 0) >= 3, process)
    process.kill()
    process.wait()
    process.communicate()
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    resumed, _ = train(parse(config), resume=True)
    one, two = load_file(whole.folder / "model.safetensors"), load_file(resumed.folder / "model.safetensors")
    assert one.keys() == two.keys()
    assert [k for k in one if not torch.equal(one[k], two[k])] == []

    def metrics(folder: Path) -> list[dict[str, float]]:
        entries = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        return [{k: v for k, v in e.items() if k != "rows_per_second"} for e in entries]

    assert metrics(whole.folder) == metrics(resumed.folder)
    assert whole.evaluate("test", resamples=0) == resumed.evaluate("test", resamples=0)


def test_asked_to_stop_it_saves_and_says_how_to_go_on(planted: Path, tmp_path: Path) -> None:
    """By SIGTERM; Ctrl-C is in tests/test_bad_input.py."""
    changes = {"training.epochs": 500, "training.patience": 500, "training.batch_size": 64}
    config = settings(planted, output=str(tmp_path / "run"), **changes)
    process = start(config, tmp_path)
    history = tmp_path / "run" / "history.jsonl"
    wait_for(history.exists, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped by SIGTERM" in err
    assert "--resume" in err
    assert "Traceback" not in err
    again = parse(config, ["training.epochs=500"])
    assert (tmp_path / "run" / "checkpoint" / "current").exists()
    with pytest.raises(ConfigError, match="holds a run already; continue it with --resume"):
        train(again)


def test_two_trainings_in_one_folder(planted: Path, tmp_path: Path) -> None:
    with locked(tmp_path / "run"), pytest.raises(FolderInUseError, match=rf"another training is running in it \(process {os.getpid()}\)"):
        train(parse(settings(planted, output=str(tmp_path / "run"))))
    train(parse(settings(planted, output=str(tmp_path / "run"))))


def test_resume_refuses_another_config(planted: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    train(parse(settings(planted, output=out)))
    with pytest.raises(ConfigError, match="was started with another 'training' section"):
        train(parse(settings(planted, output=out, **{"training.epochs": 9})), resume=True)
    run, _ = train(parse(settings(planted, output=out, **{"training.epochs": 1})), overwrite=True)
    assert len((run.folder / "history.jsonl").read_text().splitlines()) == 1


def test_the_best_epoch_is_kept_and_patience_ends_the_run(planted: Path, tmp_path: Path) -> None:
    changes = {"training.epochs": 60, "training.patience": 2, "training.optimizer": {"lr": 0.05}, "training.monitor": "logloss"}
    run, result = train(parse(settings(planted, output=str(tmp_path / "run"), **changes)))
    losses = [e["validation_logloss"] for e in result.history]
    assert result.best_epoch == int(np.argmin(losses)) + 1
    assert len(losses) == result.best_epoch + 2
    assert run.evaluate("validation", resamples=0)["click"].logloss == pytest.approx(min(losses), abs=1e-7)
    assert open_run(run.folder).evaluate("test", resamples=0) == run.evaluate("test", resamples=0)


def test_a_diverging_run_is_stopped_with_epoch_and_batch(planted: Path, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"training diverged in epoch \d, batch \d+: loss is (nan|inf); terms: logloss"):
        train(parse(settings(planted, output=str(tmp_path / "run"), **{"training.optimizer": {"lr": 1e37}})))


@pytest.mark.parametrize("frozen", [False, True])
def test_dropout_and_batchnorm_are_on_in_every_epoch_unless_the_leaky_quirk_is_asked_for(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen: bool
) -> None:
    modes: list[bool] = []

    def note(model, *args, **kwargs):  # type: ignore[no-untyped-def]
        modes.append(all(m.training for m in model.modules()))
        return train_step(model, *args, **kwargs)

    monkeypatch.setattr("prerank.training.offline.train_step", note)
    run, _ = train(parse(settings(planted, output=str(tmp_path / "run"), model=INTTOWER, **{"training.freeze_after_first_epoch": frozen})))
    steps = len(modes) // 3
    assert modes == [True] * steps + [not frozen] * 2 * steps
    run.model.train()
    run.logits("test")
    assert run.model.training  # predicting gives the mode back


def test_a_model_with_histories_is_never_trained_in_eval_mode(planted: Path, tmp_path: Path) -> None:
    """There its tables hold the rows' own labels: the loss would fall on nothing but a leak."""
    changes = {"model": {"name": "history_mf", "width": 4}, "training.freeze_after_first_epoch": True}
    with pytest.raises(ConfigError, match="freeze_after_first_epoch: a model with histories"):
        train(parse(settings(planted, output=str(tmp_path / "run"), **changes)))


def test_epochs_rehearse_nothing(planted: Path, tmp_path: Path) -> None:
    changes = {"training.rehearsal": 1}
    with pytest.raises(ConfigError, match=r"training\.rehearsal: epochs learn from every row again already, .* `prerank replay`; got 1$"):
        train(parse(settings(planted, output=str(tmp_path / "run"), **changes)))


def test_bf16_and_fp32_agree_roughly(tmp_path: Path) -> None:
    """In a world with rows enough to be learned: in a poorer one, what a training reaches varies by more than precision is worth."""
    planted_log(40_000, users=100, items=75).write_parquet(tmp_path / "log.parquet")
    model, optimizer, batch_size = TOWERS["inttower"]
    scores = []
    for precision in ("fp32", "bf16"):
        changes = {"training.precision": precision, "training.epochs": 6}
        changes |= {"training.optimizer": optimizer, "training.batch_size": batch_size}
        run, _ = train(parse(settings(tmp_path, output=str(tmp_path / precision), model=model, **changes)))
        scores.append(run.evaluate("test", resamples=0)["click"].auc)
    assert scores[0] > 0.78
    assert scores[0] == pytest.approx(scores[1], abs=0.02)


def test_big_tables_row_by_row(planted: Path, tmp_path: Path) -> None:
    changes = {"training.optimizer": {"lr": 0.01, "sparse_from": 250, "sparse_lr": 0.05}, "training.epochs": 8}
    run, _ = train(parse(settings(planted, output=str(tmp_path / "run"), **changes)))
    assert run.evaluate("test", resamples=0)["click"].auc > 0.75
