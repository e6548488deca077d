"""The simulated recipe: its files, its truth, and that the truth is what the clicks follow."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from prerank.config import ConfigError, Data
from prerank.datasets import cascade, oracle, resolve, world
from prerank.schema import Feature


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("simulated")
    options = {"impressions": 60_000, "users": 800, "items": 400, "drift": 0.5, "candidates": True, "seed": 3}
    return Path(resolve(Data(recipe="simulated", options=options, cache=str(cache))).log or "").parent


def made(tmp_path: Path, **options: Any) -> Path:
    small = {"impressions": 400, "users": 30, "items": 20, **options}
    return Path(resolve(Data(recipe="simulated", options=small, cache=str(tmp_path))).log or "").parent


def test_a_seed_is_a_world(tmp_path: Path) -> None:
    first, again, other = (made(tmp_path / p, seed=s) for p, s in (("a", 5), ("b", 5), ("c", 6)))
    for file in ("log", "users", "items", "truth"):
        assert pl.read_parquet(first / f"{file}.parquet").equals(pl.read_parquet(again / f"{file}.parquet"))
    assert not pl.read_parquet(first / "log.parquet").equals(pl.read_parquet(other / "log.parquet"))


def test_candidates_change_nothing_else(tmp_path: Path) -> None:
    without, with_ = made(tmp_path), made(tmp_path, candidates=True)
    assert pl.read_parquet(without / "log.parquet").equals(pl.read_parquet(with_ / "log.parquet"))
    assert not (without / "candidates.parquet").exists()


@pytest.mark.parametrize("impressions", [100, 101, 409])
def test_the_rows_asked_for(tmp_path: Path, impressions: int) -> None:
    assert pl.read_parquet(made(tmp_path, impressions=impressions, list_size=2, items=40) / "log.parquet").height == impressions


def test_log_and_tables_fit_together(folder: Path) -> None:
    log, users, items = (pl.read_parquet(folder / f"{n}.parquet") for n in ("log", "users", "items"))
    assert log.height == 60_000
    assert log.join(users, on="user_id", how="anti").is_empty()
    assert log.join(items, on="item_id", how="anti").is_empty()
    assert log["time_ms"].is_sorted()
    assert log.select("request_id", "item_id").is_unique().all()
    positions = log.group_by("request_id").agg(pl.col("position").sort())["position"].to_list()
    assert all(row == list(range(len(row))) for row in positions)


def test_truth_is_nowhere_among_the_features(folder: Path) -> None:
    seen = {c for n in ("log", "users", "items") for c in pl.read_parquet_schema(folder / f"{n}.parquet")}
    assert not {c for c in seen if "utility" in c or "bias" in c or "vector" in c}


def test_clicks_follow_the_true_logits(folder: Path) -> None:
    """Calibrated in every tenth of the true probability, and no better explained by any shift of it."""
    log, truth = pl.read_parquet(folder / "log.parquet"), oracle(folder)
    p = 1 / (1 + np.exp(-truth["click"]))
    click = log["click"].to_numpy()
    for part in np.array_split(np.argsort(p), 10):
        assert click[part].mean() == pytest.approx(p[part].mean(), abs=4 * np.sqrt(0.25 / len(part)))
    assert click.mean() == pytest.approx(cascade.CLICK_RATE, abs=0.01)
    bought = log["conversion"].to_numpy()[click == 1]
    q = 1 / (1 + np.exp(-truth["conversion"][click == 1]))
    assert bought.mean() == pytest.approx(q.mean(), abs=0.01)
    assert roc_auc_score(bought, q) > 0.55


def test_a_conversion_needs_a_click(folder: Path) -> None:
    log = pl.read_parquet(folder / "log.parquet")
    assert log.filter((pl.col("conversion") == 1) & (pl.col("click") == 0)).is_empty()


def test_waits_are_exponential_and_only_where_something_happened(folder: Path) -> None:
    log = pl.read_parquet(folder / "log.parquet")
    for name in ("click", "conversion"):
        assert (log[f"{name}_delay_ms"].is_not_null() == (log[name] == 1)).all()
    waits = log["click_delay_ms"].drop_nulls()
    assert waits.mean() == pytest.approx(cascade.CLICK_DELAY_MS, rel=0.05)
    assert (waits > cascade.CLICK_DELAY_MS).mean() == pytest.approx(np.exp(-1), abs=0.02)
    assert log.filter(pl.col("conversion_delay_ms") < pl.col("click_delay_ms")).is_empty()


def test_the_oracle_at_a_moment_is_the_truth_of_that_moment(folder: Path) -> None:
    """Tastes frozen as of a fraction agree with the true logits of rows near it, and with far ones less."""
    log = pl.read_parquet(folder / "log.parquet")
    when = (log["time_ms"].to_numpy() - cascade.START_MS) / (14 * cascade.DAY_MS)
    truth = oracle(folder)
    for at in (0.1, 0.9):
        frozen = oracle(folder, at=at)
        near, far = np.abs(when - at) < 0.01, np.abs(when - (1 - at)) < 0.01
        for name in ("click", "conversion"):
            assert np.abs(frozen[name] - truth[name])[near].max() < 0.15
            assert np.abs(frozen[name] - truth[name])[far].mean() > 0.3


def test_static_truth_ages(folder: Path) -> None:
    """With drift, yesterday's tastes rank worse than today's."""
    click = pl.read_parquet(folder / "log.parquet")["click"].to_numpy()[-12_000:]
    now, early = (roc_auc_score(click, oracle(folder, at=at)["click"][-12_000:]) for at in (0.9, 0.1))
    assert now > early + 0.02


def test_candidates_are_what_was_not_shown(folder: Path) -> None:
    log, others = pl.read_parquet(folder / "log.parquet"), pl.read_parquet(folder / "candidates.parquet")
    assert others.join(log, on=["request_id", "item_id"], how="semi").is_empty()
    assert set(others["stage"].unique()) == {1, 2, 3}
    sizes = others.group_by("request_id", "stage").len().group_by("stage").agg(pl.col("len").max()).sort("stage")["len"].to_list()
    assert sizes[:2] == [10, 20]  # lists of 10: 20 ranked, 40 pre-ranked, at most 80 recalled
    assert sizes[2] <= 40


def test_group_and_popularity_explain_what_a_tower_can_learn(folder: Path) -> None:
    """Item means alone rank far below the truth: there is something to learn beyond popularity."""
    log = pl.read_parquet(folder / "log.parquet")
    click, item = log["click"].to_numpy(), log["item_id"].to_numpy()
    train, test = slice(0, 48_000), slice(48_000, None)
    mean = (np.bincount(item[train], click[train], 401) + 2.5) / (np.bincount(item[train], minlength=401) + 10)
    popularity, best = roc_auc_score(click[test], mean[item[test]]), roc_auc_score(click[test], oracle(folder)["click"][test])
    assert best - popularity > 0.1
    assert best > 0.75


@pytest.mark.parametrize("column", ["click", "conversion", "click_delay_ms", "conversion_delay_ms", "position"])
def test_outcomes_are_no_features(column: str) -> None:
    with pytest.raises(ConfigError, match=f"column '{column}' cannot be a feature"):
        resolve(Data(recipe="simulated", features=(Feature(name=column, side="context"),)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"items": 3}, "option items: .*got 3"),
        ({"drift": 2}, "option drift"),
        ({"from": "x"}, "is generated"),
        ({"user": 9}, "did you mean 'users'"),
    ],
)
def test_wrong_options(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve(Data(recipe="simulated", options=options))


def test_half_a_million_impressions_in_ten_seconds(tmp_path: Path) -> None:
    began = time.process_time()
    rows = pl.read_parquet(made(tmp_path, impressions=500_000, users=2_000, items=1_000) / "log.parquet").height
    assert rows == 500_000
    assert time.process_time() - began < 10


def test_the_smallest_world(tmp_path: Path) -> None:
    log = pl.read_parquet(made(tmp_path, users=2, items=world.ITEM_GROUPS, impressions=100, list_size=1) / "log.parquet")
    assert log.height == 100
