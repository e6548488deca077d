from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from prerank.config import ConfigError, parse
from prerank.run import open_run, train
from prerank.training import Quiet
from prerank.training.device import device_of
from tests.training.conftest import planted_log, settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    log = planted_log(4000, 60, 40).with_columns(level=pl.col("click") + (pl.col("utility") > 2).cast(pl.Int8) * pl.col("click"))
    log.write_parquet(folder / "log.parquet")
    return folder


def test_what_a_run_folder_holds(folder: Path, tmp_path: Path) -> None:
    run, result = train(parse(settings(folder, output=str(tmp_path / "run"))))
    names = {p.name for p in run.folder.iterdir()}
    assert {"config.yaml", "model.safetensors", "history.jsonl", "result.json", "checkpoint"} <= names
    written = json.loads((run.folder / "result.json").read_text())
    assert (written["best_epoch"], written["rows"]) == (result.best_epoch, 3 * len(run.dataset.rows("train")))


def test_an_opened_run_gives_the_same_logits_in_the_logs_order(folder: Path, tmp_path: Path) -> None:
    run, _ = train(parse(settings(folder, output=str(tmp_path / "run"))))
    one, two = run.logits("test"), open_run(run.folder).logits("test")
    assert np.array_equal(one[0], two[0])
    assert np.array_equal(one[1][:, 0], planted_log(4000, 60, 40)["click"].to_numpy()[run.dataset.rows("test")])


def test_several_objectives_keep_a_logit_each(folder: Path, tmp_path: Path) -> None:
    labels = {"click": {"column": "click"}, "deep": {"rule": "level > 1"}}
    objective = [{"loss": "logloss", "label": "click"}, {"loss": "logloss", "label": "deep", "weight": 0.5}]
    changes = {"data.labels": labels, "objective": objective}
    run, _ = train(parse(settings(folder, output=str(tmp_path / "run"), model={"name": "dssm", "hidden": [16], "width": 8}, **changes)))
    found = run.evaluate("test", resamples=0)
    assert list(found) == ["click", "deep"]
    assert found["deep"].positives < found["click"].positives
    assert run.logits("test")[0].shape[1] == 2


def test_graded_labels_are_no_business_of_logloss(folder: Path, tmp_path: Path) -> None:
    raw = settings(folder, output=str(tmp_path / "run"), **{"data.labels": {"level": {"column": "level"}}})
    with pytest.raises(ConfigError, match=r"objective 'logloss': label 'level' must lie in \[0, 1\]; its values go from 0 to 2"):
        train(parse(raw))


def test_a_typo_costs_no_preparation_and_leaves_no_run(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown option 'widht'"):
        train(parse(settings(folder, output=str(tmp_path / "run"), model={"name": "mf", "widht": 3})))
    assert not (tmp_path / "run").exists()


def test_folders_that_hold_no_finished_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"holds no config\.yaml"):
        open_run(tmp_path)
    run, _ = train(parse(settings(folder, output=str(tmp_path / "run"))))
    (run.folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="its training has not finished"):
        open_run(run.folder)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no run found below 'runs'"):
        open_run()


def test_a_split_without_rows_is_said(folder: Path, tmp_path: Path) -> None:
    run, _ = train(parse(settings(folder, output=str(tmp_path / "run"), **{"data.split": {"validation": 0.1, "test": 0.0}})))
    with pytest.raises(ConfigError, match="its data has no test rows"):
        run.evaluate("test")


@pytest.mark.parametrize(("device", "message"), [("gpu", "must be auto, cpu or cuda"), ("cuda", "torch sees no GPU")])
def test_a_device_that_is_not_there(device: str, message: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        assert device_of(parse({"training": {"device": device}}).training).type == "cuda"
        return
    with pytest.raises(ConfigError, match=message):
        device_of(parse({"training": {"device": device}}).training)


def test_a_loss_that_compares_candidates_wants_lists_or_the_batch_as_one(folder: Path, tmp_path: Path) -> None:
    own = parse(settings(folder, objective=[{"loss": "bpr"}], output=str(tmp_path / "own")))
    with pytest.raises(ValueError, match="objective 'bpr': compares the candidates of a list, and every list here holds one"):
        train(own)
    for loss in ("bpr", "softmax"):
        _, result = train(parse(settings(folder, objective=[{"loss": loss, "lists": "batch"}], output=str(tmp_path / loss))))
        assert result.best is not None
        assert result.best > 0.6


def test_in_batch_softmax_is_corrected_by_the_train_counts(folder: Path, tmp_path: Path) -> None:
    objective = [{"loss": "logloss"}, {"loss": "in_batch_softmax", "weight": 0.1}]
    _, result = train(parse(settings(folder, objective=objective, output=str(tmp_path / "run"))))
    assert result.history[-1]["in_batch_softmax"] > 0
    assert result.best is not None
    assert result.best > 0.6


def test_jrc_keeps_its_first_logit_a_probabilitys(folder: Path, tmp_path: Path) -> None:
    labels = {"click": {"column": "click"}, "energy": {"column": "click"}}
    objective = [{"loss": "jrc", "energy": "energy", "lists": "batch", "alpha": 0.9}]
    run, result = train(parse(settings(folder, **{"data.labels": labels}, objective=objective, output=str(tmp_path / "run"))))
    z, y = run.logits("validation")
    assert 1 / (1 + np.exp(-z[:, 0].mean())) == pytest.approx(y[:, 0].mean(), abs=0.1)
    assert result.best is not None
    assert result.best > 0.6


HYBRID = [
    {"loss": "distillation", "weight": 0.2, "stages": ["impression"]},
    {"loss": "softsort", "weight": 0.2, "temperature": 4.0},
    {"loss": "am_rankmax", "weight": 0.5, "stages": ["impression", "random"]},
    {"loss": "arf", "weight": 0.1},
]


def cascade(folder: Path, out: Path, objective: list[dict[str, object]], **changes: object) -> dict[str, object]:
    log = pl.read_parquet(folder / "log.parquet")
    log = log.with_columns(score=1 / (1 + (-pl.col("utility")).exp()), raw=pl.col("utility"))
    log.with_columns(score=pl.when(pl.col("ts") % 5 == 0).then(None).otherwise(pl.col("score"))).write_parquet(out / "log.parquet")
    lists = {"by": "user", "stages": {"impression": "all", "random": 10}}
    given = {"data.teacher": {"column": "score"}, "training.lists": lists, "training.batch_size": 8, "objective": objective}
    return settings(out, output=str(out / "run"), **{**given, **changes})


def test_the_hybrid_objective_learns_from_lists_and_is_itemised(folder: Path, tmp_path: Path) -> None:
    _, result = train(parse(cascade(folder, tmp_path, HYBRID, **{"training.optimizer": {"lr": 0.03}, "training.epochs": 8})))
    assert {"loss", "distillation", "softsort", "am_rankmax", "arf"} <= result.history[-1].keys()
    assert result.best is not None
    assert result.best > 0.6


def test_scores_that_a_term_cannot_take_are_told_before_training(folder: Path, tmp_path: Path) -> None:
    raw = cascade(folder, tmp_path, HYBRID, **{"data.teacher": {"column": "raw"}})
    with pytest.raises(ConfigError, match="objective 'distillation': kind softmax needs scores of at least 0; got -"):
        train(parse(raw))
    assert not (tmp_path / "run" / "history.jsonl").exists()


def test_a_label_without_a_term_is_said_and_not_evaluated(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []

    class Heard(Quiet):
        def say(self, line: str) -> None:
            said.append(line)

    labels = {"click": {"column": "click"}, "deep": {"rule": "level > 1"}}
    config = parse(settings(folder, output=str(tmp_path / "run"), objective=[{"loss": "logloss"}], **{"data.labels": labels}))
    run, _ = train(config, progress=Heard())
    assert "label 'deep': no term of the objective looks at it; its logit is neither trained nor evaluated" in said
    assert list(run.evaluate("test", resamples=0)) == ["click"]
