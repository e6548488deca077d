"""Recall@K and NDCG@K in the pool against a walk in plain Python; the pool is the same for every model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prerank import build
from prerank.config import ConfigError, Evaluation, Model, parse
from prerank.data import Dataset, prepare
from prerank.run import train
from prerank.training import pool as pools
from prerank.training.pool import Pool
from tests.data.cascade import cascade_data, cascade_log
from tests.training.conftest import planted_log, settings


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("planted")
    planted_log(3000, 40, 60).write_parquet(folder / "log.parquet")
    evaluation = {"by": "user", "stages": {"impression": "all", "random": "all"}, "at": [3, 20]}
    return train(parse(settings(folder, evaluation=evaluation, **{"training.epochs": 1})))[0]


def plain(dataset: Dataset, scores: np.ndarray, k: int) -> tuple[list[float], list[float]]:
    """Recall and NDCG of each user with a positive, from scores [users, items]."""
    train_rows, test_rows = dataset.rows("train"), dataset.rows("test")
    known = set(dataset.item_row[train_rows].tolist())
    recalls, ndcgs = [], []
    for u in range(len(dataset.user_ids)):
        shown = set(dataset.item_row[train_rows[dataset.user_row[train_rows] == u]].tolist())
        mine = test_rows[dataset.user_row[test_rows] == u]
        clicked: dict[int, float] = {}
        for r in mine:
            clicked[int(dataset.item_row[r])] = max(clicked.get(int(dataset.item_row[r]), 0.0), float(dataset.labels[r, 0]))
        if not any(clicked.values()):
            continue
        candidates = sorted({*clicked, *(known - shown)}, key=lambda i: (-scores[u, i], clicked.get(i, 0.0)))
        gains = [clicked.get(i, 0.0) for i in candidates]
        positives = int(sum(gains))
        recalls.append(sum(gains[:k]) / positives)
        best = sum(1 / math.log2(r + 2) for r in range(min(positives, k)))
        ndcgs.append(sum(g / math.log2(r + 2) for r, g in enumerate(gains[:k])) / best)
    return recalls, ndcgs


def all_scores(run: Any) -> np.ndarray:
    data, model = run.dataset, run.model
    with torch.inference_mode():
        user = model.encode("user", {n: torch.from_numpy(np.array(c)) for n, c in data.users.items()})
        item = model.encode("item", {n: torch.from_numpy(np.array(c)) for n, c in data.items.items()})
        index = torch.arange(len(data.item_ids)).expand(len(data.user_ids), -1)
        return np.asarray(model.head(user, item, torch.arange(len(data.user_ids)), index)[..., 0])


def test_the_metrics_are_those_of_a_plain_walk(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = all_scores(run)
    for pairs in (1 << 16, 200):
        monkeypatch.setattr(pools, "PAIRS", pairs)
        found = run.retrieve(run.pool("test"))
        for k in (3, 20):
            recalls, ndcgs = plain(run.dataset, scores, k)
            np.testing.assert_allclose(sorted(found.metrics[f"recall@{k}"].values), sorted(recalls), rtol=1e-9)
            np.testing.assert_allclose(sorted(found.metrics[f"ndcg@{k}"].values), sorted(ndcgs), rtol=1e-9)
            assert len(found.users) == len(recalls) == len(set(found.users.tolist()))


def test_ties_count_against_the_model() -> None:
    scores, labels = torch.tensor([[1.0, 1.0, 1.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    where = torch.ones(1, 4, dtype=torch.bool)
    assert pools._decisive(scores, labels, where, 1).tolist() == [[True] * 4]  # equal to the first: all may be it
    assert pools._decisive(scores, torch.zeros(1, 4), where, 1).tolist() == [[True, True, True, False]]
    assert pools._decisive(scores, labels, torch.tensor([[False, True, True, False]]), 3).tolist() == [[False, True, True, False]]


def test_the_pool_is_the_same_whenever_it_is_asked(run: Any) -> None:
    settings_ = Evaluation.model_validate({"by": "user", "stages": {"impression": "all", "random": 7}, "at": [3]})

    def asked(seed: int) -> list[torch.Tensor]:
        pool = Pool(run.dataset, "test", settings_.model_copy(update={"seed": seed}))
        return [b.item["item"][b.item_index] for b in pool.loader.epoch(0)]

    assert all(torch.equal(a, b) for a, b in zip(asked(0), asked(0), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(asked(0), asked(1), strict=True))


def test_the_pool_is_stated(run: Any) -> None:
    said = run.pool("test").said
    assert said.endswith("lists by user with a positive, impression all, random all, without the items of the user's train rows")


def test_lists_by_request_are_brought_together_by_user(tmp_path: Path) -> None:
    dataset = prepare(cascade_data(cascade_log(8, requests=120), tmp_path))
    pool = Pool(dataset, "test", Evaluation.model_validate({"stages": {"impression": "all", "recall": "all"}, "at": [2]}))
    torch.manual_seed(0)
    found = pool.measure(build.model(Model.model_validate({"name": "mf", "width": 4}), dataset.schema, dataset.sizes))
    both = found.of_users("recall@2")
    assert both.value == pytest.approx(found.metrics["recall@2"].value)
    assert len(both.values) == len(np.unique(found.users)) < len(found.users)


def test_a_pool_that_cannot_be_is_said(run: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluation.stages: no row is of stage 'recall'"):
        Pool(run.dataset, "test", Evaluation.model_validate({"by": "user", "stages": {"recall": "all"}}))
    log = cascade_log(8)
    dataset = prepare(
        cascade_data(log.with_columns(click=log["click"] * (log["request"] < 3)), tmp_path, split={"kind": "time", "test": 0.5})
    )
    with pytest.raises(ConfigError, match="evaluation: no list of test rows has a positive"):
        Pool(dataset, "test", Evaluation())
