"""No row is scored by a model that saw it; the file is the log again, and gives the same split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from prerank.cli import app
from prerank.config import ConfigError, Teacher, dump
from prerank.data import DataError, Loader, prepare
from prerank.metrics import auc, sigmoid
from prerank.run import open_run
from prerank.teachers import teach
from prerank.training import predict
from tests.teachers.conftest import config, numbered

SPLITS: dict[str, dict[str, Any]] = {
    "random": {"kind": "random", "validation": 0.15, "test": 0.15},
    "time": {"kind": "time", "validation": 0.15, "test": 0.15},
    "user": {"kind": "user", "validation": 0.15, "test": 0.15},
}


@pytest.mark.parametrize("by", ["pair", "user"])
def test_the_fold_of_every_row_is_not_among_the_rows_its_model_was_fitted_on(folder: Path, tmp_path: Path, by: Any) -> None:
    taught = teach({"mlp": config(folder)}, tmp_path / "t.parquet", folds=3, by=by)
    assert (taught.rows, taught.scored) == (3000, 3000)
    scores = pl.read_parquet(taught.out)["teacher_score"].to_numpy()
    rows = pl.read_parquet(tmp_path / "t.runs" / "log.parquet")["row"].to_numpy()
    base = prepare(config(folder).data)
    scored: list[int] = []
    for name in ("fold-0", "fold-1", "fold-2", "whole"):
        run = open_run(tmp_path / "t.runs" / "mlp" / name)
        fitted, chosen = (rows[run.dataset.rows(s)] for s in ("train", "validation"))
        z, _ = predict(run.model, Loader(run.dataset, np.arange(3000), 512, shuffle="none").epoch(0))
        own = np.flatnonzero(np.abs(sigmoid(z[:, 0]) - scores) < 1e-6)  # the rows that this model scored
        held = base.rows("train")[~np.isin(base.rows("train"), fitted)] if name != "whole" else np.flatnonzero(base.split != 0)
        assert np.isin(held, own).all()
        assert not np.isin(held, fitted).any()
        assert np.isin(chosen, np.flatnonzero(base.split == 1)).all()
        if by == "user":
            users = numbered()["user"].to_numpy()
            assert name == "whole" or not np.isin(users[held], users[fitted]).any()
        scored += held.tolist()
    assert sorted(scored) == list(range(3000))


def test_a_memoriser_reads_its_own_labels_and_not_those_it_is_asked_for(tmp_path: Path) -> None:
    """Labels drawn by lot, a feature that names each pair: in-fold the label is known, out of fold it cannot be."""
    log = numbered(2000)
    pairs = pl.concat([log, log]).with_columns(pair=pl.concat([log["row"], log["row"]]))  # every pair twice, with the same label
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 2000)
    pairs = pairs.with_columns(user=pl.col("pair") // 50, item=pl.col("pair") % 50, click=pl.Series(np.concatenate([label, label])))
    pairs.write_parquet(tmp_path / "log.parquet")
    features = [{"name": "pair", "side": "context"}, {"name": "group", "side": "user"}, {"name": "item", "side": "item"}]
    changes = {"data.split": {"kind": "user", "validation": 0.1, "test": 0.1}, "training.epochs": 12, "training.patience": 12}
    lr = config(tmp_path, {"name": "lr"}, **{"data.features": features, "training.optimizer.lr": 0.3, **changes})
    taught = teach({"lr": lr}, tmp_path / "t.parquet", folds=4)
    dataset = prepare(lr.data)
    rows, y = dataset.rows("train"), dataset.labels[dataset.rows("train"), 0]
    assert float(auc(pl.read_parquet(taught.out)["teacher_score"].to_numpy()[rows], y)) == pytest.approx(0.5, abs=0.06)
    run = open_run(tmp_path / "t.runs" / "lr" / "fold-0")
    z, y = run.logits("train")
    assert float(auc(z[:, 0], y[:, 0])) > 0.99  # it would have read them


@pytest.mark.parametrize("split", list(SPLITS))
def test_the_file_as_the_log_gives_the_same_split_and_labels(tmp_path: Path, split: str) -> None:
    log = numbered(1500).drop("row")
    pl.concat([log, log[:40]]).write_parquet(tmp_path / "log.parquet")
    changes = {"data.split": SPLITS[split], "data.drop": "rating = 3", "data.deduplicate": True}
    member = config(tmp_path, **changes)
    teach({"mlp": member}, tmp_path / "t.parquet", folds=2)
    with_teacher = member.data.model_copy(update={"log": str(tmp_path / "t.parquet"), "teacher": Teacher(column="teacher_score")})
    one, two = prepare(member.data), prepare(with_teacher)
    for name in ("split", "labels", "user_row", "item_row", "ts"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    assert two.teacher is not None
    assert not np.isnan(two.teacher).any()
    written = pl.read_parquet(tmp_path / "t.parquet")
    assert written.drop("teacher_score").equals(pl.concat([log, log[:40]]))
    assert np.array_equal(written["teacher_score"].is_null().to_numpy(), (written["rating"] == 3).to_numpy())


def test_several_rankers_are_weighted_as_an_ensemble_is(folder: Path, tmp_path: Path) -> None:
    members = {"mlp": config(folder), "fm": config(folder, {"name": "fm"})}
    labels = {"click": {"column": "click"}, "high": {"rule": "rating > 3"}}
    objective = [{"loss": "weighted_logloss", "label": n} for n in labels]
    members = {n: config(folder, {"name": n}, **{"data.labels": labels, "objective": objective}) for n in members}
    taught = teach(members, tmp_path / "t.parquet", folds=2)
    record = json.loads((tmp_path / "t.runs" / "ensemble" / "ensemble.json").read_text())
    assert [m["weights"]["high"] for m in record["members"]] == [taught.weights["high"][n] for n in members]
    frame = pl.read_parquet(taught.out)
    assert frame.columns[-3:] == ["teacher_score", "teacher_score_click", "teacher_score_high"]
    assert frame["teacher_score"].equals(frame["teacher_score_click"], check_names=False)
    rows = open_run(tmp_path / "t.runs" / "fm" / "whole").dataset.rows("test")
    for t, label in enumerate(labels):
        z = sum(taught.weights[label][n] * open_run(tmp_path / "t.runs" / n / "whole").logits("test")[0][:, t] for n in members)
        np.testing.assert_allclose(frame[f"teacher_score_{label}"].to_numpy()[rows], sigmoid(z), atol=1e-6)


def test_rankers_learn_impressions_and_score_every_stage(tmp_path: Path) -> None:
    stages = np.random.default_rng(5).choice(["impression", "recall", "ranking"], 1500, p=[0.6, 0.2, 0.2])
    numbered(1500).with_columns(stage=pl.Series(stages)).write_parquet(tmp_path / "log.parquet")
    taught = teach({"mlp": config(tmp_path, **{"data.stage": {"column": "stage"}})}, tmp_path / "t.parquet", folds=2)
    assert taught.scored == 1500
    for fold in ("whole", "fold-0"):
        dataset = open_run(tmp_path / "t.runs" / "mlp" / fold).dataset
        assert (stages[dataset.rows("train")] == "impression").all()
        assert len(dataset.rows("train", None)) > len(dataset.rows("train"))


def test_finished_folds_are_not_repeated(folder: Path, tmp_path: Path) -> None:
    member, out = {"mlp": config(folder)}, tmp_path / "t.parquet"
    teach(member, out, folds=2)
    before, runs = pl.read_parquet(out), tmp_path / "t.runs" / "mlp"
    out.unlink()
    (runs / "fold-1" / "logits.npy").unlink()
    made = {f: (runs / f / "model.safetensors").stat().st_mtime_ns for f in ("whole", "fold-0")}
    with pytest.raises(ConfigError, match=r"one was begun in .* continue it with --resume"):
        teach(member, out, folds=2)
    lines: list[str] = []
    teach(member, out, folds=2, resume=True, say=lines.append)
    assert lines[0] == "2 of 3 trainings are finished already"
    assert "1 of 1" in lines[-1]
    assert made == {f: (runs / f / "model.safetensors").stat().st_mtime_ns for f in made}
    assert before.equals(pl.read_parquet(out))
    other = {"mlp": config(folder, **{"training.seed": 4})}
    with pytest.raises(ConfigError, match="was trained with another 'training' section"):
        teach(other, out, folds=2, resume=True)
    teach(other, out, folds=2, overwrite=True)
    assert not before.equals(pl.read_parquet(out))


def test_what_cannot_be_taught_is_said_before_anything_is_trained(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    with pytest.raises(ConfigError, match=r"all configs must have the same data\.drop; those of 'a' and 'b' differ"):
        teach({"a": config(folder), "b": config(folder, **{"data.drop": "rating = 3"})}, out)
    with pytest.raises(ConfigError, match="must be a Parquet file"):
        teach({"a": config(folder)}, tmp_path / "t.csv")
    with pytest.raises(DataError, match="is the log itself"):
        teach({"a": config(folder)}, folder / "log.parquet", overwrite=True)
    numbered(50).with_columns(teacher_score=pl.lit(0.5)).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match="has a column 'teacher_score' already"):
        teach({"a": config(tmp_path)}, out)
    with pytest.raises(ConfigError, match="unknown model 'mpl'"):
        teach({"a": config(folder, {"name": "mpl"})}, out)
    assert [p.name for p in tmp_path.iterdir()] == ["log.parquet"]


def test_the_command(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mlp.yaml").write_text(dump(config(folder)))
    out = tmp_path / "new" / "t.parquet"
    member = str(tmp_path / "mlp.yaml")
    asked = ["teach", member, "--out", str(out), "--folds", "2", "--hidden", member, "--blocks", "4"]
    said = CliRunner().invoke(app, asked)
    assert said.exit_code == 0, said.output
    assert f"{out}: 3,000 rows, 3,000 scored" in said.output
    frame = pl.read_parquet(out)
    assert frame["teacher_score"].dtype == pl.Float32
    assert frame["teacher_hidden"].dtype == pl.List(pl.Float32)
    assert frame["teacher_hidden"].null_count() == 750  # the first block
    assert set(frame["teacher_hidden"].drop_nulls().list.len()) == {8}
    assert CliRunner().invoke(app, asked).exit_code == 2
    help_ = CliRunner().invoke(app, ["teach", "--help"])
    assert "Examples" in help_.output
