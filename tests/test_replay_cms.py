"""CMS with a registered ranking model in `prerank replay`: it trains in step, and no label comes back to its row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from prerank import build
from prerank.config import ConfigError, checked
from prerank.config.run import Config
from prerank.replay import Replayed, replay
from prerank.run import open_run
from prerank.schema import Feature
from prerank.training import Interrupted
from prerank.training.learner import Pair
from prerank.training.online import _Stream

ROWS, USERS = 1200, 40
DCNV2 = {"name": "dcnv2", "layers": 1, "hidden": [8, 6], "norm": False, "id_head": 2}
FULL = {"cas": {"skip_input": False}, "cts": {"negatives": True, "inputs": "vector_count_age"},
        "cms": {"mode": "mean", "inputs": "vector_count_age", "ranker": DCNV2}}  # fmt: skip


def log(folder: Path, flipped: int | None = None) -> None:
    random = np.random.default_rng(1)
    users, items = random.integers(0, USERS, ROWS), random.integers(0, 20, ROWS)
    y = random.random(ROWS) < 1 / (1 + np.exp(-2 * (random.normal(size=USERS)[users] + random.normal(size=20)[items])))
    if flipped is not None:
        y[flipped] = ~y[flipped]
    frame = pl.DataFrame({"user": users, "item": items, "ts": 1_650_000_000_000 + 60_000 * np.arange(ROWS), "y": y.astype(np.int64)})
    folder.mkdir(exist_ok=True)
    frame.write_parquet(folder / "log.parquet")


def settings(folder: Path, synergy: dict[str, Any], **training: Any) -> Config:
    data = {"log": str(folder / "log.parquet"), "user_id": "user", "item_id": "item", "time": "ts", "width": 4,
            "labels": {"y": {"column": "y"}}, "split": {"kind": "time", "validation": 0, "test": 0.3}, "cache": str(folder / "cache"),
            "features": [{"name": "user", "side": "user"}, {"name": "item", "side": "item"}]}  # fmt: skip
    model = {"name": "dssm", "hidden": [8], "width": 4, "norm": False, "similarity": "dot", "id_head": 2}
    groups = [{"match": "*ids.table", "lr": 0.05, "rowwise": True}]  # matches the towers' and the ranking model's id head
    given = {"batch_size": 64, "threads": 1, "average": 0.99, "optimizer": {"lr": 0.003, "groups": groups}, **training}
    return checked(Config, {"data": data, "model": model, "synergy": synergy, "training": given, "output": str(folder / "run")}, "test")


def played(folder: Path, synergy: dict[str, Any], flipped: int | None = None, **training: Any) -> Replayed:
    log(folder, flipped)
    return replay(settings(folder, synergy, **training))


def test_it_is_read_and_served_like_any_replay(tmp_path: Path) -> None:
    found = played(tmp_path, FULL)
    assert np.isfinite(found.prequential).all()
    assert np.isfinite(found.frozen).all()
    assert found.metrics["prequential"]["y"]["auc"] > 0.65
    run = open_run(found.folder)
    [memory] = [m for m in run.model.memories if m.needs_hidden and m.side == "user"]
    assert memory.cache.width == 8 + 6  # the cross layers' output (two fields of 4) beside the MLP's
    assert len(memory.cache.store) == USERS
    again, _ = run.logits("test")  # the folder's weights and memories are the frozen protocol's
    np.testing.assert_allclose(again, found.frozen, atol=1e-5)


def test_cached_vectors_are_the_ranking_models_means(tmp_path: Path) -> None:
    """At a rate of nothing the ranking model stays as it was drawn, so that what is cached can be made in another way."""
    tiny = {"optimizer": {"lr": 1e-30}}
    config = settings(tmp_path, {"cms": {"mode": "mean", "ranker": DCNV2}}, **tiny)
    log(tmp_path)
    found = replay(config)
    run = open_run(found.folder)
    torch.manual_seed(config.training.seed)
    build.model(config.model, run.dataset.schema, run.dataset.sizes, config.synergy)
    ranker = build.model(build.Model.model_validate(DCNV2), run.dataset.schema, run.dataset.sizes).eval()
    rows = np.asarray(found.order.rows[: found.order.test])
    users, items = (run.dataset.columns(side, rows) for side in ("user", "item"))
    at = torch.arange(len(rows))
    with torch.no_grad():
        hidden = ranker.pairs(users, items, at, at)[1].double().numpy()
    for memory, column in zip(run.model.memories, (users["user"], items["item"]), strict=True):
        ids = column.numpy()
        kept = memory.cache.store.get(torch.unique(column)).vectors
        expected = np.stack([hidden[ids == i].mean(axis=0) for i in np.unique(ids)])
        np.testing.assert_allclose(kept.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("row", [100, 700, 1100])
def test_a_flipped_label_moves_no_score_of_its_batch_or_before(tmp_path: Path, row: int) -> None:
    one, other = played(tmp_path / "a", FULL), played(tmp_path / "b", FULL, flipped=row)
    test = one.order.test
    batch = row - row % 64 if row < test else test + (row - test) - (row - test) % 64
    np.testing.assert_array_equal(one.prequential[: batch + 64], other.prequential[: batch + 64])
    assert (one.prequential[batch + 64 :] != other.prequential[batch + 64 :]).any()
    if row >= test:  # frozen knows no test row
        np.testing.assert_array_equal(one.frozen, other.frozen)


@pytest.mark.parametrize("learned_first", [False, True])
def test_no_vector_is_made_by_a_model_that_saw_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, learned_first: bool) -> None:
    """The vectors of a flipped label's batch are the same bits; were the ranking model to learn first, they would not be."""
    hidden, made = Pair._hidden, []

    def recorded(self: Pair, ranker: Any, batch: Any) -> Any:
        if learned_first:
            self._train(self.beside, batch, 0, None)  # type: ignore[arg-type]
        made.append(hidden(self, ranker, batch))
        return made[-1]

    monkeypatch.setattr(Pair, "_hidden", recorded)
    played(tmp_path / "a", FULL)
    played(tmp_path / "b", FULL, flipped=100)
    one, other = made[: len(made) // 2], made[len(made) // 2 :]
    assert torch.equal(one[100 // 64], other[100 // 64]) is not learned_first
    assert torch.equal(one[0], other[0])
    assert not torch.equal(one[2], other[2])


def test_a_stopped_run_goes_on_to_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = played(tmp_path / "whole", FULL)
    log(tmp_path / "cut")
    config = settings(tmp_path / "cut", FULL)
    learn, steps = _Stream._learn, []

    def stopping(self: _Stream, now: int) -> None:
        steps.append(1)
        if len(steps) == 8:
            self._save()
            raise Interrupted("stopped")
        learn(self, now)

    monkeypatch.setattr(_Stream, "_learn", stopping)
    with pytest.raises(Interrupted):
        replay(config)
    monkeypatch.setattr(_Stream, "_learn", learn)
    again = replay(config, resume=True)
    np.testing.assert_array_equal(whole.prequential, again.prequential)
    np.testing.assert_array_equal(whole.frozen, again.frozen)


def test_the_ranking_model_may_know_what_the_towers_do_not(tmp_path: Path) -> None:
    """A column that tells the answer, for the ranking model alone: with it the means that are cached are the users' own."""
    log(tmp_path)
    frame = pl.read_parquet(tmp_path / "log.parquet")
    frame.with_columns(hint=pl.col("y").mean().over("user")).write_parquet(tmp_path / "log.parquet")
    found = []
    for reads in ((), ("hint",)):
        config = settings(tmp_path, {"cms": {"mode": "mean", "ranker": DCNV2, "reads": reads}})
        hint = Feature(name="hint", side="context", kind="numeric", field=False)
        data = config.data.model_copy(update={"features": (*config.data.features, hint)})
        found.append(replay(config.model_copy(update={"data": data}), overwrite=True))
    assert found[1].metrics["prequential"]["y"]["auc"] > found[0].metrics["prequential"]["y"]["auc"] + 0.01


@pytest.mark.parametrize(
    ("ranker", "message"),
    [
        ("dcn2", "synergy.cms: unknown ranker 'dcn2'; did you mean 'dcn"),
        ("lr", "synergy.cms: ranker 'lr' has no hidden layer whose vectors could be shared"),
        ({"name": "dcnv2", "layer": 2}, "model 'dcnv2': unknown option 'layer'; did you mean 'layers'?"),
        ("dssm", "synergy.cms: unknown ranker 'dssm'"),
    ],
)
def test_what_cannot_be_shared_is_refused(tmp_path: Path, ranker: Any, message: str) -> None:
    log(tmp_path)
    with pytest.raises(ConfigError) as error:
        replay(settings(tmp_path, {"cms": {"ranker": ranker}}))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("cms", "message"),
    [
        ({"ranker": DCNV2, "reads": ["hnt"]}, "synergy.cms.reads: 'hnt' must be a feature with field false"),
        ({"ranker": DCNV2, "reads": ["user"]}, "synergy.cms.reads: 'user' must be a feature with field false"),
        ({"column": "h", "reads": ["user"]}, "reads: belongs to ranker; vectors of a column were made elsewhere"),
    ],
)
def test_what_a_ranking_model_cannot_read_is_refused(tmp_path: Path, cms: Any, message: str) -> None:
    log(tmp_path)
    with pytest.raises(ConfigError) as error:
        replay(settings(tmp_path, {"cms": cms}))
    assert message in str(error.value)
