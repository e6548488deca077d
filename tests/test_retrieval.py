"""Candidates: the best items of all, without those that the user knows, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from prerank.batch import Stage
from prerank.cli import app
from prerank.config import ConfigError, dump, parse
from prerank.data import Dataset, prepare
from prerank.retrieval import retrieve
from prerank.run import Run, train
from tests.training.conftest import planted_log, settings

MODELS: dict[str, dict[str, Any]] = {
    "dssm": {"name": "dssm", "hidden": [12], "width": 6},
    "inttower": {"name": "inttower", "hidden": [12, 8], "heads": 2, "head_width": 4},
    "mf": {"name": "mf", "width": 8},
}


def raw(folder: Path, **changes: Any) -> dict[str, Any]:
    return settings(folder, objective=[{"loss": "in_batch_softmax"}], **{"training.epochs": 2, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("retrieval")
    log = planted_log(1500, 50, 60).with_columns(request=pl.int_range(pl.len()) // 5 + 1000, hour=pl.int_range(pl.len()) // 5 % 24)
    log.with_columns(user=pl.col("request") % 50, group=pl.col("request") % 7).write_parquet(folder / "log.parquet")
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return _trained(folder, "dssm")


def _trained(folder: Path, name: str, **changes: Any) -> Run:
    run, _ = train(parse(raw(folder, model=MODELS[name], output=str(folder / f"run-{name}"), **changes)), overwrite=True)
    run.model.eval()
    return run


def _shown(dataset: Dataset, splits: tuple[str, ...]) -> set[tuple[int, int]]:
    rows = np.concatenate([dataset.rows(s) for s in splits])
    return set(zip(dataset.user_row[rows].tolist(), dataset.item_row[rows].tolist(), strict=True))


def _scores(run: Run) -> np.ndarray:
    """Logits of every user and item, by the model's own head.  # [U, N]"""
    d, model = run.dataset, run.model
    users = {n: torch.from_numpy(np.array(c)) for n, c in d.users.items()}
    items = {n: torch.from_numpy(np.array(c)) for n, c in d.items.items()}
    n = len(d.item_ids)
    with torch.inference_mode():
        u, i = model.encode("user", users), model.encode("item", items)
        every = torch.arange(n).expand(len(d.user_ids), n)
        return model.head(u, i, torch.arange(len(d.user_ids)), every)[..., 0].numpy()


@pytest.mark.parametrize("remove", ["all", "train"])
@pytest.mark.parametrize("name", list(MODELS))
def test_the_best_items_of_all_that_are_not_removed(folder: Path, tmp_path: Path, name: str, remove: Any) -> None:
    run = _trained(folder, name)
    made = retrieve(run, tmp_path / "c.parquet", count=8, remove=remove)
    frame, d, scores = pl.read_parquet(made.out), run.dataset, _scores(run)
    assert frame.columns == ["user", "ts", "item", "stage", "retrieval_score"]
    log = pl.read_parquet(folder / "log.parquet")
    assert frame.join(log.select("user", "ts"), on=["user", "ts"], how="anti").is_empty()  # each has the time of an impression of its user
    assert set(frame["stage"]) == {"recall"}
    splits = ("train",) if remove == "train" else ("train", "validation", "test")
    removed = _shown(d, splits)
    items = {item: row for row, item in enumerate(d.item_ids)}
    for user, name_of in enumerate(d.user_ids):
        own = frame.filter(pl.col("user") == name_of)
        got = [items[i] for i in own["item"]]
        allowed = [i for i in range(len(d.item_ids)) if (user, i) not in removed]
        best = sorted(allowed, key=lambda i: -scores[user, i])[:8]
        np.testing.assert_allclose(scores[user, got], scores[user, best], atol=1e-5)  # equal scores may change places
        np.testing.assert_allclose(own["retrieval_score"].to_numpy(), scores[user, got], atol=1e-5)
        assert not {(user, i) for i in got} & removed
        assert len(set(got)) == 8


def test_recall_is_of_validation_positives_among_all_items_but_those_of_train(run: Run, tmp_path: Path) -> None:
    made, d, scores = retrieve(run, tmp_path / "c.parquet", count=10), run.dataset, _scores(run)
    scores = scores.copy()
    for user, item in _shown(d, ("train",)):
        scores[user, item] = -np.inf
    rows = d.rows("validation")
    rows = rows[d.labels[rows, 0] > 0]
    found = []
    for user in np.unique(d.user_row[rows]):
        liked = d.item_row[rows[d.user_row[rows] == user]]
        found.append(np.isin(liked, np.argsort(-scores[user], kind="stable")[:10]).mean())
    assert made.measured == len(found)
    assert made.recall == pytest.approx(np.mean(found))


def test_a_list_a_request_has_its_context_and_time(folder: Path, tmp_path: Path) -> None:
    features = [*raw(folder)["data"]["features"], {"name": "hour", "side": "context"}]
    run = _trained(folder, "dssm", **{"data.features": features, "data.request": "request"})
    made = retrieve(run, tmp_path / "c.parquet", count=5, by="request")
    frame, log = pl.read_parquet(made.out), pl.read_parquet(folder / "log.parquet")
    assert frame.columns == ["user", "request", "ts", "item", "stage", "retrieval_score"]
    assert made.lists == log["request"].n_unique()
    first = log.group_by("request", maintain_order=True).first()
    got = frame.group_by("request", maintain_order=True).first()
    assert got.select("request", "user", "ts").equals(first.select("request", "user", "ts"))
    of_a_user = frame.filter(pl.col("user") == 0).group_by("request").agg(pl.col("retrieval_score").max())
    assert of_a_user["retrieval_score"].n_unique() > 1  # the hour is in it


def test_what_was_made_is_appended_to_the_log(folder: Path, run: Run, tmp_path: Path) -> None:
    made = retrieve(run, tmp_path / "c.parquet", count=5)
    data = run.config.data.model_copy(update={"candidates": str(made.out)})
    dataset = prepare(data)
    assert (np.asarray(dataset.stage) == Stage.RECALL).sum() == made.rows == 250
    assert np.array_equal(dataset.split[: len(run.dataset)], run.dataset.split)
    again = Run(run.folder, run.config.model_copy(update={"data": data}), dataset, run.model)
    shown = len(_shown(run.dataset, ("train", "validation", "test")))
    assert retrieve(again, tmp_path / "d.parquet", count=60).rows == 50 * 60 - shown  # candidates are no impressions: they are not removed


def test_candidates_of_users_are_dealt_by_the_times_they_were_given(folder: Path, tmp_path: Path) -> None:
    """As the user's own impressions are: about a tenth and two tenths of them are validation and test."""
    run = _trained(folder, "mf", **{"data.split": {"kind": "time", "validation": 0.1, "test": 0.2}})
    made = retrieve(run, tmp_path / "c.parquet", count=20, remove="train")
    dataset = prepare(run.config.data.model_copy(update={"candidates": str(made.out)}))
    assert np.array_equal(dataset.split[: dataset.logged], run.dataset.split)
    share = np.bincount(dataset.split[dataset.logged :], minlength=3) / made.rows
    np.testing.assert_allclose(share, [0.7, 0.1, 0.2], atol=0.06)


def test_lists_end_where_no_items_are_left(run: Run, tmp_path: Path) -> None:
    made = retrieve(run, tmp_path / "c.parquet", count=1000)
    shown = len(_shown(run.dataset, ("train", "validation", "test")))
    assert (made.short, made.rows) == (50, 50 * 60 - shown)


def test_what_cannot_be_retrieved_is_said(folder: Path, run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="count: must be at least 1"):
        retrieve(run, tmp_path / "c.parquet", count=0)
    with pytest.raises(ConfigError, match=r"by request needs data\.request"):
        retrieve(run, tmp_path / "c.parquet", count=5, by="request")
    ranker, _ = train(parse(settings(folder, model={"name": "lr"}, output=str(tmp_path / "lr"))))
    with pytest.raises(ConfigError, match="model 'lr' cannot retrieve"):
        retrieve(ranker, tmp_path / "c.parquet", count=5)
    assert not (tmp_path / "c.parquet").exists()


def test_the_command(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(dump(parse(raw(folder, model=MODELS["mf"], output=str(tmp_path / "run")))))
    out = str(tmp_path / "new" / "c.parquet")
    said = CliRunner().invoke(app, ["candidates", str(tmp_path / "r.yaml"), "--out", out, "--count", "5"])
    assert said.exit_code == 0, said.output
    assert "250 candidates of 50 users" in said.output
    assert "recall@5 of" in said.output
    again = CliRunner().invoke(app, ["candidates", "--run", str(tmp_path / "run"), "--out", out])
    assert (again.exit_code, "exists already; --overwrite replaces it" in again.output) == (2, True)
    said = CliRunner().invoke(app, ["candidates", "--run", str(tmp_path / "run"), "--out", out, "--overwrite", "--count", "3"])
    assert (said.exit_code, len(pl.read_parquet(out))) == (0, 150)
    assert CliRunner().invoke(app, ["candidates", "--out", out]).exit_code == 2
    refused = CliRunner().invoke(app, ["candidates", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "e.parquet"), "--set",
                                       "model={name: lr}", "--set", f"output={tmp_path / 'lr'}"])  # fmt: skip
    assert refused.exit_code != 0
    assert "model 'lr' cannot retrieve" in f"{refused.exception} {refused.output}"
    assert not (tmp_path / "lr").exists()  # before it is trained
    assert "Examples" in CliRunner().invoke(app, ["candidates", "--help"]).output


def test_drawn_items_stand_beside_the_best(folder: Path, run: Run, tmp_path: Path) -> None:
    alone, both = (retrieve(run, tmp_path / f"{n}.parquet", count=6, drawn=n) for n in (0, 7))
    frame, d = pl.read_parquet(both.out), run.dataset
    recalled = frame.filter(pl.col("stage") == "recall")
    assert recalled.drop("ts").equals(pl.read_parquet(alone.out).drop("ts"))
    drawn = frame.filter(pl.col("stage") == "random")
    assert drawn["retrieval_score"].null_count() == len(drawn) == 7 * len(d.user_ids)
    assert not frame.select("user", "item").is_duplicated().any()
    users, items = ({v: k for k, v in enumerate(ids)} for ids in (d.user_ids, d.item_ids))
    pairs = {(users[u], items[i]) for u, i in frame.select("user", "item").iter_rows()}
    assert not pairs & _shown(d, ("train", "validation", "test"))
    with pytest.raises(ConfigError, match="random: must be at least 0; got -1"):
        retrieve(run, tmp_path / "e.parquet", count=6, drawn=-1)


def test_drawn_items_are_no_more_than_are_left(run: Run, tmp_path: Path) -> None:
    made, d = retrieve(run, tmp_path / "c.parquet", count=6, drawn=1000), run.dataset
    assert made.rows == len(d.user_ids) * len(d.item_ids) - len(_shown(d, ("train", "validation", "test")))
