"""A search on a tiny planted world: it finds, keeps its budget, goes on where it was killed, and never sees a test row."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from prerank.cli import app
from prerank.config import Config, ConfigError
from prerank.config import load as load_config
from prerank.run import open_run, train
from prerank.training import Result
from prerank.tuning import Tune, load, search, tune
from tests.training.conftest import planted_log, settings


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    planted_log(6000, 60, 40).write_parquet(folder / "log.parquet")
    return folder


@pytest.fixture
def place(world: Path, tmp_path: Path) -> Path:
    """A folder of this test's own, with a run's config in it."""
    raw = settings(world, output=str(tmp_path / "run"), **{"training.epochs": 2})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(raw))
    return tmp_path


def a_search(place: Path, **changes: Any) -> Tune:
    raw = {"run": str(place / "run.yaml"), "trials": 3, "space": {"training.optimizer.lr": {"log": [1e-4, 0.05]},
           "model.width": {"choices": [4, 8]}}, **changes}  # fmt: skip
    (place / "tune.yaml").write_text(yaml.safe_dump(raw))
    return load(place / "tune.yaml")


def lines(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "trials.json").read_text())
    return found


def test_the_best_is_the_best_and_can_be_trained(place: Path) -> None:
    said: list[str] = []
    tuned = tune(a_search(place), say=said.append)
    assert tuned.folder == place / "run-tune"
    trials = lines(tuned.folder)
    assert [t["state"] for t in trials] == ["finished"] * 3
    assert tuned.value == max(t["auc"] for t in trials)
    assert (trials[0]["training.optimizer.lr"], trials[0]["model.width"]) == (0.01, 8)  # the run's own settings come first
    config = load_config(tuned.config)
    assert config.training.optimizer.lr == tuned.best["training.optimizer.lr"]
    assert config.model.options["width"] == tuned.best["model.width"]
    assert config.output == str(place / "run")
    _, result = train(config)
    assert result.best == pytest.approx(tuned.value, abs=1e-6)
    assert "3 of 3" in said[-1]
    assert "trials/h, 0 min left" in said[-1]


def test_only_the_best_trial_keeps_its_weights_and_is_a_run(place: Path) -> None:
    tuned = tune(a_search(place))
    weights = list(tuned.folder.glob("trials/*/model.safetensors"))
    assert len(weights) == 1
    assert not list(tuned.folder.glob("trials/*/checkpoint"))
    assert open_run(weights[0].parent).config.training.optimizer.lr == tuned.best["training.optimizer.lr"]


def test_more_trials_go_on_and_draw_what_one_long_search_draws(place: Path) -> None:
    tune(a_search(place))
    tuned = tune(a_search(place, trials=5), resume=True)
    once = tune(a_search(place, trials=5, output=str(place / "once")))
    drawn = [[{k: t[k] for k in ("training.optimizer.lr", "model.width", "auc")} for t in lines(f)] for f in (tuned.folder, once.folder)]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 5


def test_a_killed_search_takes_its_trial_up_again(place: Path) -> None:
    a_search(place, trials=3)
    raw = yaml.safe_load((place / "run.yaml").read_text())
    raw["training"] |= {"epochs": 15, "patience": 15, "checkpoint_seconds": 0.05}
    (place / "run.yaml").write_text(yaml.safe_dump(raw))
    command = [sys.executable, "-m", "prerank", "tune", str(place / "tune.yaml"), "-q"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        deadline = time.monotonic() + 120  # a busy machine takes long to start
        while not list((place / "run-tune").glob("trials/*/checkpoint/current")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    (before,) = (place / "run-tune/trials").iterdir()
    assert not (place / "run-tune/trials.json").exists()
    with pytest.raises(ConfigError, match="holds a search already; continue it with --resume"):
        tune(a_search(place))
    tuned = tune(a_search(place, trials=1), resume=True)
    assert [t["state"] for t in tuned.trials] == ["finished"]
    assert list((place / "run-tune/trials").iterdir()) == [before]
    straight = tune(a_search(place, trials=1, output=str(place / "straight")))
    assert tuned.value == straight.value


def test_a_trial_half_trained_on_other_data_begins_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = yaml.safe_load((place / "run.yaml").read_text())
    raw["data"]["log"] = str(place / "log.parquet")
    (place / "run.yaml").write_text(yaml.safe_dump(raw))
    planted_log(3000, 60, 40).write_parquet(place / "log.parquet")
    with monkeypatch.context() as patch:
        patch.setattr(search, "train", lambda config, each_epoch, **options: train(config, each_epoch=_stop, **options))
        with pytest.raises(MemoryError):
            tune(a_search(place, trials=1))
    assert list((place / "run-tune").glob("trials/*/checkpoint/current"))
    planted_log(4000, 60, 40).write_parquet(place / "log.parquet")
    said: list[str] = []
    tuned = tune(a_search(place, trials=1), resume=True, say=said.append)
    assert [t["state"] for t in tuned.trials] == ["finished"]
    assert any("trained on other data" in line and line.endswith("begun again") for line in said)


def _stop(entry: dict[str, Any]) -> None:
    raise MemoryError


def test_what_takes_the_process_with_it_every_time_is_given_up(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def dies(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(search, "train", dies)
        for n in range(search.AGAIN + 1):
            with pytest.raises(MemoryError):
                tune(a_search(place, trials=1), resume=n > 0)
    tuned = tune(a_search(place, trials=1), resume=True)
    assert (tuned.best["training.optimizer.lr"], tuned.best["model.width"]) != (0.01, 8)


def test_a_journal_that_ends_anywhere_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between two lines, or in the middle of one, with optuna's lock still held."""
    monkeypatch.setattr(search, "train", pretended)
    whole = tune(a_search(place))
    journal = whole.folder / "journal.log"
    text = journal.read_bytes()
    ends = [i + 1 for i, byte in enumerate(text) if byte == ord("\n")]
    for cut in (*ends[::4], *(end - 7 for end in ends[::5])):
        journal.write_bytes(text[:cut])
        (whole.folder / "journal.log.lock").symlink_to(journal)
        tuned = tune(a_search(place), resume=True)
        assert (tuned.best, tuned.value, len(tuned.trials)) == (whole.best, whole.value, 3), cut


def pretended(config: Config, **options: Any) -> tuple[None, Result]:
    """A training that takes no time: the nearer lr is to .02, the better."""
    best = 1 - abs(config.training.optimizer.lr - 0.02)
    options["each_epoch"]({"epoch": 1, "validation_auc": best})
    return None, Result(1, best, [], 1, 1.0, 1.0, 1.0, 1)


def test_equal_trials_are_trained_once_and_a_small_space_ends(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = search.train
    monkeypatch.setattr(search, "train", lambda config, **options: calls.append(config) or real(config, **options))
    tuned = tune(a_search(place, trials=4, space={"model.width": {"choices": [4, 8]}}))
    assert len(calls) == len(tuned.trials) == 2  # and then the space is exhausted
    assert len({t["auc"] for t in tuned.trials}) == 2


def test_what_is_too_slow_is_not_trained(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    took = {4: 0.1, 8: 9.0, 16: 9.0}
    monkeypatch.setattr(search, "p50", lambda model, dataset, k, dtype: took[model.options["width"]])
    trained = []
    monkeypatch.setattr(search, "train", lambda config, **options: trained.append(config) or pretended(config, **options))
    budget = {"latency": {"candidates": 10, "milliseconds": 0.5}, "space": {"model.width": {"choices": [4, 8, 16]}}}
    tuned = tune(a_search(place, trials=6, **budget))
    assert tuned.best == {"model.width": 4}
    for t in tuned.trials:
        assert t["milliseconds"] == took[t["model.width"]]
        assert (t["state"] == "finished") == (t["model.width"] == 4)
    slow = next(t for t in tuned.trials if t["state"] == "pruned")
    assert slow["why"] == "9.000 ms, over the budget of 0.5"
    assert [config.model.options["width"] for config in trained] == [4]
    monkeypatch.setattr(search, "p50", lambda *args: 9.0)
    with pytest.raises(ConfigError, match=r"tune: none of 2 trials finished; the last one: 9\.000 ms, over the budget of 0\.5"):
        tune(a_search(place, trials=2, output=str(place / "none"), **budget))


def test_bad_trials_are_pruned(place: Path) -> None:
    space = {"training.optimizer.lr": {"choices": [0.03, 0.02, 0.04, 0.05, 0.025, 1e-7]}}
    raw = yaml.safe_load((place / "run.yaml").read_text())
    raw["training"] |= {"epochs": 6, "patience": 6}
    (place / "run.yaml").write_text(yaml.safe_dump(raw))
    tuned = tune(a_search(place, trials=6, space=space))
    worst = [t for t in tuned.trials if t["training.optimizer.lr"] == 1e-7]
    assert len(worst) == 1
    pruned = [t for t in tuned.trials if t["state"] == "pruned"]
    assert pruned
    assert pruned[0]["why"].startswith("below the median after epoch ")
    assert int(pruned[0]["why"].rsplit(" ", 1)[1]) >= 2  # not in the first third of them
    assert not {tuned.best["training.optimizer.lr"]} & {t["training.optimizer.lr"] for t in pruned}


def test_a_trial_that_fails_is_told_and_the_search_goes_on(place: Path) -> None:
    space = {"training.optimizer.lr": {"choices": [0.01, 1e30]}}
    tuned = tune(a_search(place, trials=6, space=space))
    failed = [t for t in tuned.trials if t["training.optimizer.lr"] == 1e30]
    assert failed
    assert failed[0]["state"] == "failed"
    assert "diverged in epoch" in failed[0]["why"]
    assert tuned.best == {"training.optimizer.lr": 0.01}


def test_logloss_is_minimised(place: Path) -> None:
    tuned = tune(a_search(place, metric="logloss"))
    assert tuned.value == min(t["logloss"] for t in tuned.trials)
    assert load_config(tuned.config).training.monitor == "logloss"


def test_a_search_needs_validation_rows(place: Path) -> None:
    with pytest.raises(ConfigError, match=r"tune: the data has no validation rows to judge a trial on; give data\.split\.validation"):
        tune(a_search(place, set=["data.split.validation=0"]))


def test_resuming_needs_the_same_search(place: Path) -> None:
    tune(a_search(place, trials=1))
    with pytest.raises(ConfigError, match=r"its search was started with other settings \(.*search.yaml\)"):
        tune(a_search(place, trials=2, seed=1), resume=True)
    tuned = tune(a_search(place, trials=1, seed=1), overwrite=True)
    assert len(tuned.trials) == 1


def test_without_optuna_it_says_what_to_install(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = a_search(place)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"tune: needs optuna, which is not installed: pip install 'prerank\[tune\]'"):
        tune(wanted)


def test_on_the_command_line(place: Path) -> None:
    a_search(place, trials=2)
    done = CliRunner().invoke(app, ["tune", str(place / "tune.yaml")])
    assert done.exit_code == 0, done.stderr
    assert "trial 2 of 2: auc 0." in done.stderr
    assert f"next: prerank train --config {place / 'run-tune/best.yaml'}" in done.stdout
    again = CliRunner().invoke(app, ["tune", str(place / "tune.yaml"), "--resume", "--overwrite"])
    assert (again.exit_code, again.stderr.strip()) == (
        2, "error: tune: --resume continues a search and --overwrite discards it; give one of them")  # fmt: skip
