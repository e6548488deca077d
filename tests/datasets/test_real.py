"""The official files themselves, where PRERANK_DATA holds them; without them nothing here is collected."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from prerank.config import Data
from prerank.data import prepare
from prerank.datasets import RECIPES, notes, resolve

CHECKED = ("movielens", "kuairand")
FOUND = {n: f for n in CHECKED if os.environ.get("PRERANK_DATA") and (f := RECIPES[n].within(Path(os.environ["PRERANK_DATA"])))}


def tables(name: str, folder: Path, **options: str) -> tuple[pl.DataFrame, Data]:
    data = resolve(Data(recipe=name, options={"from": str(folder), **options}))
    return pl.read_parquet(data.log or ""), data


def movielens(folder: Path) -> None:
    """The preparation is the released one: 739,012 rows without the threes, 77.84 % positive, 3,668 movies; leaked means rank at .88."""
    log, data = tables("movielens", folder)
    assert log.height == 1_000_209
    kept = log.filter(pl.col("rating") != 3)
    assert (kept.height, kept["movie_id"].n_unique()) == (739_012, 3_668)
    assert round(100 * (kept["rating"] > 3).mean(), 2) == 77.84
    assert (pl.read_parquet(data.users or "").height, pl.read_parquet(data.items or "").height) == (6_040, 3_883)
    official, _ = tables("movielens", folder, protocol="inttower-official")
    test = official.filter(pl.col("split") == 2)
    auc = roc_auc_score(test["rating"] > 3, test["user_mean_rating"] + test["item_mean_rating"])
    assert auc == pytest.approx(0.8814, abs=0.002)


def kuairand(folder: Path) -> None:
    """Of the dates 25 April - 8 May: 228,329 rows, 5,460 of them duplicates; split by days of UTC+8."""
    log, data = tables("kuairand", folder)
    if log["date"].min() == 20220425:
        assert notes(Path(data.log or "").parent)["duplicates_dropped"] == 5_460
        assert log.height == 228_329 - 5_460
    dataset = prepare(data)
    midnight = 1_651_766_400_000  # 6 May 2022 00:00 in UTC+8
    assert ((dataset.split == 2) == (log["time_ms"].to_numpy() >= midnight)).all()
    assert ((dataset.split >= 1) == (log["time_ms"].to_numpy() >= midnight - 86_400_000)).all()
    by_date = log["date"].to_numpy() >= 20220506  # the official date is that of the nearest hour: a few rows before midnight differ
    assert ((dataset.split == 2) == by_date).mean() > 0.999


if FOUND:

    @pytest.mark.parametrize("name", FOUND)
    def test_the_real_files(name: str) -> None:
        {"movielens": movielens, "kuairand": kuairand}[name](FOUND[name])
