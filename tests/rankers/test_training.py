"""Rankers through the whole of training: a planted world is learned, by FTRL-Proximal too, and a run is opened again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from prerank.config import parse
from prerank.metrics import auc
from prerank.run import Run, open_run, train
from tests.training.conftest import planted_log, settings

USERS, ITEMS = 120, 80
DEEP = {"hidden": [32, 16]}
RANKERS: dict[str, dict[str, Any]] = {"fm": {"name": "fm"}, "mlp": {"name": "mlp", **DEEP}, "deepfm": {"name": "deepfm", **DEEP}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rankers")
    planted_log(40_000, USERS, ITEMS).write_parquet(folder / "log.parquet")
    return folder


def trained(world: Path, tmp_path: Path, model: dict[str, Any], optimizer: dict[str, Any], epochs: int) -> Run:
    run, _ = train(parse(settings(world, **{"model": model, "training.optimizer": optimizer, "training.epochs": epochs,
                                            "output": str(tmp_path / "run")})))  # fmt: skip
    return run


def references(run: Run, world: Path) -> tuple[float, float]:
    """Test AUC of the items' smoothed train means, and of the true utilities."""
    log = pl.read_parquet(world / "log.parquet")
    test, fit = run.dataset.rows("test"), run.dataset.rows("train")
    y, item = log["click"].to_numpy(), log["item"].to_numpy()
    means = (np.bincount(item[fit], y[fit], ITEMS) + 1) / (np.bincount(item[fit], minlength=ITEMS) + 2)
    return auc(means[item[test]], y[test]), auc(log["utility"].to_numpy()[test], y[test])


@pytest.mark.parametrize("name", RANKERS)
def test_a_planted_world_is_learned(world: Path, tmp_path: Path, name: str) -> None:
    """At least 85 % of the AUC gap between popularity and the true utilities, which are an inner product and an item bias."""
    run = trained(world, tmp_path, RANKERS[name], {"lr": 0.015}, 5)
    popularity, truth = references(run, world)
    z, labels = run.logits("test")
    reached = (auc(z[:, 0], labels[:, 0]) - popularity) / (truth - popularity)
    assert reached >= 0.85, f"popularity {popularity:.4f}, truth {truth:.4f}, reached {reached:.3f}"
    again, _ = open_run(run.folder).logits("test")
    assert np.array_equal(again, z)


def test_logistic_regression_by_ftrl_knows_what_is_popular_and_l1_leaves_the_rest_at_zero(world: Path, tmp_path: Path) -> None:
    run = trained(world, tmp_path, {"name": "lr"}, {"name": "ftrl", "lr": 0.3}, 4)
    popularity, truth = references(run, world)
    z, labels = run.logits("test")
    assert popularity < auc(z[:, 0], labels[:, 0]) < popularity + 0.1 * (truth - popularity)  # users' means, and no more
    rare = trained(world, tmp_path / "l1", {"name": "lr"}, {"name": "ftrl", "lr": 0.3, "l1": 20.0}, 4)
    weights = [run.model.wide.weights.tables["1"].detach() for run in (run, rare)]
    zeros = [(w == 0).float().mean().item() for w in weights]
    assert zeros[0] < 0.1 < 0.3 < zeros[1] < 0.9
    z, labels = rare.logits("test")
    assert auc(z[:, 0], labels[:, 0]) > popularity - 0.01
