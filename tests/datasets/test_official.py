"""The LEAKY official MovieLens protocol, against scikit-learn and the released steps in plain Python."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.model_selection import train_test_split

from prerank.config import Data
from prerank.data import prepare
from prerank.datasets import resolve
from prerank.datasets.official import SEED, shuffle_split, with_leaked_means


@pytest.mark.parametrize("rows", [5, 10, 999, 1001, 739012])
def test_the_split_is_scikit_learns(rows: int) -> None:
    train, test = train_test_split(np.arange(rows), test_size=0.2, random_state=SEED)
    ours = shuffle_split(rows)
    assert ours[0].tolist() == train.tolist()
    assert ours[1].tolist() == test.tolist()


def ratings(rows: int, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    columns = {"user_id": (1, 40), "movie_id": (1, 25), "rating": (1, 6), "ts": (0, 60)}
    return pl.DataFrame({n: rng.integers(low, high, rows) for n, (low, high) in columns.items()})


def official_by_hand(log: pl.DataFrame) -> list[tuple[int, int, int, int, float, float, int]]:
    """The released code's steps in plain Python, on rows as tuples."""
    rows = sorted((r for r in log.rows() if r[2] != 3), key=lambda r: r[3])
    parts = train_test_split(rows, test_size=0.2, random_state=SEED)
    out = []
    for part in parts:
        happy = {r[0] for r in part if r[2] > 3}
        part = [r for r in part if r[0] in happy]
        mean = {}
        for key in (0, 1):
            for value in {r[key] for r in part}:
                labels = [r[2] > 3 for r in part if r[key] == value]
                mean[key, value] = sum(labels) / len(labels)
        joined = [(*r, mean[0, r[0]], mean[1, r[1]]) for user in sorted(happy) for r in part if r[0] == user]
        out.append([r for movie in sorted({r[1] for r in part}) for r in joined if r[1] == movie])
    train, test = out
    scaled = []
    low, high = ([f(r[k] for r in test) for k in (4, 5)] for f in (min, max))
    for number, part in enumerate(out):
        for i, r in enumerate(part):
            split = 2 if number else int(i >= int(len(train) * 0.8))
            scaled.append((*r[:4], *((r[4 + k] - low[k]) / (high[k] - low[k]) for k in (0, 1)), split))
    return scaled


@pytest.mark.parametrize("seed", range(5))
def test_the_official_protocol_by_hand(seed: int) -> None:
    log = ratings(600, seed)
    ours, by_hand = with_leaked_means(log), official_by_hand(log)
    assert ours.columns == ["user_id", "movie_id", "rating", "ts", "user_mean_rating", "item_mean_rating", "split"]
    assert [r[:4] + r[6:] for r in ours.rows()] == [r[:4] + r[6:] for r in by_hand]
    assert np.allclose(ours.select("user_mean_rating", "item_mean_rating").to_numpy(), [r[4:6] for r in by_hand], atol=1e-6)


def test_users_without_a_positive_leave_their_part_only() -> None:
    """User 0 has negatives alone; everybody else a positive in both parts. Its rows go, nobody else's do."""
    log = ratings(3000, 1).with_columns(rating=pl.when(pl.col("user_id") == 1).then(1).otherwise(pl.col("rating")))
    kept = with_leaked_means(log)
    assert 1 not in kept["user_id"].to_list()
    assert kept.height == log.filter((pl.col("rating") != 3) & (pl.col("user_id") != 1)).height


def test_official_settings(ml1m: Path) -> None:
    many = "\n".join("::".join(map(str, r)) for r in ratings(400, 0).rows())
    (ml1m / "ratings.dat").write_text(many + "\n")
    data = resolve(Data(recipe="movielens", options={"from": str(ml1m), "protocol": "inttower-official"}))
    assert (data.split.kind, data.split.column, data.drop) == ("column", "split", None)
    sides = {f.name: (f.side, f.kind) for f in data.features}
    assert sides["user_mean_rating"] == ("user", "numeric")
    assert sides["item_mean_rating"] == ("item", "numeric")
    dataset = prepare(data)
    log = pl.read_parquet(data.log or "")
    assert [len(dataset.rows(s)) for s in ("train", "validation", "test")] == [log.filter(pl.col("split") == s).height for s in (0, 1, 2)]
    assert len(dataset.rows("test")) >= math.floor(0.15 * log.height)
    features = dataset.columns("item", dataset.rows("test"))
    assert (
        np.corrcoef(features["item_mean_rating"].numpy(), log.filter(pl.col("split") == 2)["item_mean_rating"].to_numpy())[0, 1] > 0.999999
    )
