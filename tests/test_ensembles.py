"""Several runs as one: fitted on validation alone, measured on test, refused where rows differ."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from prerank.cli import app
from prerank.config import ConfigError, parse
from prerank.data import Loader
from prerank.ensembles import ensemble, open_ensemble
from prerank.rankers.ensemble import fit_weights
from prerank.run import Run, open_run, train
from prerank.training import predict
from tests.training.conftest import planted_log, settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ensembles")
    planted_log(6000, 60, 40).write_parquet(folder / "log.parquet")
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path) -> list[Run]:
    models = {"mf": {"name": "mf", "width": 6}, "mlp": {"name": "mlp", "hidden": [16]}, "lr": {"name": "lr"}}
    return [train(parse(settings(folder, model=model, output=str(folder / name))))[0] for name, model in models.items()]


def test_weights_come_from_validation_and_metrics_from_test(runs: list[Run], tmp_path: Path) -> None:
    made = ensemble(runs, tmp_path / "all", resamples=0)
    validation, labels = np.stack([r.logits("validation")[0][:, 0] for r in runs]), runs[0].logits("validation")[1][:, 0]
    assert made.weights == {"click": fit_weights(validation, labels).tolist()}
    w = made.weights["click"]
    test, labels = np.stack([r.logits("test")[0][:, 0] for r in runs]), runs[0].logits("test")[1][:, 0]
    p = 1 / (1 + np.exp(-(w @ test)))
    expected = -np.mean(labels * np.log(p) + (1 - labels) * np.log(1 - p))
    assert made.metrics["test"]["click"].logloss == pytest.approx(expected, rel=1e-6)
    assert made.metrics["validation"]["click"].logloss <= min(m["click"].logloss for m in made.members["validation"]) + 1e-9
    for run, found in zip(runs, made.members["test"], strict=True):
        assert found["click"].auc == pytest.approx(run.evaluate("test", resamples=0)["click"].auc)


def test_what_the_folder_says(runs: list[Run], tmp_path: Path) -> None:
    made = ensemble(runs[:2], tmp_path / "two", resamples=20)
    record = json.loads((made.folder / "ensemble.json").read_text())
    assert record["fitted_on"] == "validation"
    assert [m["run"] for m in record["members"]] == [str(r.folder) for r in runs[:2]]
    assert sum(m["weights"]["click"] for m in record["members"]) == pytest.approx(1)
    measured = json.loads((made.folder / "metrics-test.json").read_text())
    assert (measured["model"], measured["split"]) == ("ensemble", "test")
    assert measured["metrics"]["click"]["auc"] == made.metrics["test"]["click"].auc
    with pytest.raises(ConfigError, match="holds a run or an ensemble"):
        ensemble(runs[:2], made.folder)
    ensemble(runs[1:], made.folder, resamples=0, overwrite=True)
    with pytest.raises(ConfigError, match="holds a run or an ensemble"):
        ensemble(runs[:2], runs[0].folder, overwrite=True)


def test_the_opened_model_gives_the_weighted_logits(runs: list[Run], tmp_path: Path) -> None:
    made = ensemble(runs, tmp_path / "all", resamples=0)
    model, dataset = open_ensemble(made.folder)
    logits, _ = predict(model, Loader(dataset, dataset.rows("test"), 1000, shuffle="none").epoch(0))
    expected = sum(w * r.logits("test")[0] for w, r in zip(made.weights["click"], runs, strict=True))
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_a_member_that_was_trained_again_is_noticed(folder: Path, runs: list[Run], tmp_path: Path) -> None:
    again = train(parse(settings(folder, output=str(tmp_path / "again"))))[0]
    ensemble([runs[0], again], tmp_path / "both", resamples=0)
    raw = settings(folder, output=str(tmp_path / "again"))
    train(parse({**raw, "training": {**raw["training"], "seed": 5}}), overwrite=True)
    with pytest.raises(ConfigError, match="has been trained again since; fit the ensemble again"):
        open_ensemble(tmp_path / "both")


def test_features_may_differ_rows_may_not(folder: Path, runs: list[Run], tmp_path: Path) -> None:
    raw = settings(folder, output=str(tmp_path / "fewer"))
    raw["data"]["features"] = raw["data"]["features"][:-1]
    fewer = train(parse(raw))[0]
    assert fewer.dataset.fingerprint != runs[0].dataset.fingerprint
    made = ensemble([runs[0], fewer], tmp_path / "both", resamples=0)
    with pytest.raises(ConfigError, match="must read the same prepared data"):
        open_ensemble(made.folder)
    split = train(parse(settings(folder, output=str(tmp_path / "split"), **{"data.split": {"seed": 9}})))[0]
    with pytest.raises(ConfigError, match=r"all runs must have the same validation rows.*split' are not those of"):
        ensemble([runs[0], split], tmp_path / "no", resamples=0)
    label = train(parse(settings(folder, output=str(tmp_path / "label"), **{"data.labels": {"kind": {"rule": "kind > 1"}}})))[0]
    with pytest.raises(ConfigError, match=r"must have the same labels; '.*mf' has click, '.*label' kind"):
        ensemble([runs[0], label], tmp_path / "no", resamples=0)
    assert not (tmp_path / "no").exists()


def test_one_run_is_no_ensemble(runs: list[Run], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs at least two runs; got 1"):
        ensemble(runs[:1], tmp_path)
    with pytest.raises(ConfigError, match=r"holds no ensemble\.json"):
        open_ensemble(tmp_path)


def test_the_verb(runs: list[Run], tmp_path: Path) -> None:
    names = [str(r.folder) for r in runs]
    out = CliRunner().invoke(app, ["ensemble", *names, "--to", str(tmp_path / "made"), "--resamples", "0"])
    assert out.exit_code == 0
    assert "ensemble" in out.output
    again = CliRunner().invoke(app, ["ensemble", *names, "--to", str(tmp_path / "made")])
    assert again.exit_code == 2
    assert again.stderr.count("\n") == 1
    shown = CliRunner().invoke(app, ["ensemble", *names, "--to", str(tmp_path / "made"), "--resamples", "0", "--overwrite", "--json"])
    assert len(json.loads(shown.output)["members"]) == 3


def test_opened_runs_are_left_as_they_were(runs: list[Run], tmp_path: Path) -> None:
    before = {k: v.clone() for k, v in runs[1].model.state_dict().items()}
    ensemble(runs, tmp_path / "all", resamples=0)
    assert all(torch.equal(before[k], v) for k, v in runs[1].model.state_dict().items())
    assert np.array_equal(open_run(runs[1].folder).logits("test")[0], runs[1].logits("test")[0])
