"""Folds as columns of an ordinary log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from prerank.config import ConfigError
from prerank.data import prepare
from prerank.teachers.fold_log import NO_FOLD, FoldLog, make
from tests.teachers.conftest import config, numbered


def made(folder: Path, to: Path, by: str = "pair", folds: int = 3, **changes: object) -> FoldLog:
    to.mkdir(exist_ok=True)
    return make(config(folder, **changes).data, to, folds=folds, by=by, seed=0)  # type: ignore[arg-type]


def test_folds_part_the_train_rows_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    log = made(folder, tmp_path)
    train = log.dataset.split == 0
    assert np.array_equal(log.fold != NO_FOLD, train)
    parts = [log.scored_by(k) for k in range(3)]
    assert np.array_equal(np.sort(np.concatenate(parts)), log.dataset.rows("train"))
    assert np.array_equal(log.scored_by(None), np.flatnonzero(~train))
    for k, part in enumerate(parts):
        assert len(part) == pytest.approx(train.sum() / 3, rel=0.2)
        column = pl.read_parquet(log.path)[f"teacher_split_{k}"].to_numpy()
        assert np.array_equal(column == 0, train & (log.fold != k))
        assert np.array_equal(column == 1, log.dataset.split == 1)


@pytest.mark.parametrize("by", ["pair", "user"])
def test_what_stays_together(folder: Path, tmp_path: Path, by: str) -> None:
    log = made(folder, tmp_path, by)
    keys = ["user"] if by == "user" else ["user", "item"]
    frame = pl.read_parquet(log.path).with_columns(fold=pl.Series(log.fold)).filter(pl.col("fold") != NO_FOLD)
    groups = frame.group_by(keys).agg(pl.col("fold").n_unique(), pl.len())
    assert (groups["len"] > 1).any()
    assert (groups["fold"] == 1).all()


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_rows_that_preparation_drops_are_left_out_and_duplicates_point_at_the_first(tmp_path: Path, kind: str) -> None:
    log = numbered(400).drop("row").with_columns(zip=pl.lit("02138"))
    twice = pl.concat([log, log[:50], log[100:120]])
    twice.write_csv(tmp_path / "log.csv") if kind == "csv" else twice.write_parquet(tmp_path / "log.parquet")
    changes = {"data.drop": "rating = 3", "data.deduplicate": True, "data.log": str(tmp_path / f"log.{kind}")}
    found = made(tmp_path, tmp_path / "folds", **changes)
    assert np.array_equal(found.kept < 0, (twice["rating"] == 3).to_numpy())
    assert np.array_equal(found.kept[400:450], found.kept[:50])
    assert np.array_equal(found.kept[450:], found.kept[100:120])
    kept = pl.read_parquet(found.path).select(log.columns)
    assert kept.equals(log.filter(pl.col("rating") != 3).cast(kept.schema))  # type: ignore[arg-type]
    assert kept["zip"].dtype == pl.String
    assert len(found.dataset) == len(kept)


def test_the_whole_split_prepares_to_the_same_columns(folder: Path, tmp_path: Path) -> None:
    """A fold's data is the user's but for the split."""
    log = made(folder, tmp_path)
    whole = prepare(log.data_of(None, config(folder).data))
    for name in ("user_row", "item_row", "labels", "split"):
        assert np.array_equal(getattr(whole, name), getattr(log.dataset, name)), name


def test_what_cannot_be_folded_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="folds: must be at least 2; got 1"):
        made(folder, tmp_path, folds=1)
    with pytest.raises(ConfigError, match=r"fold \d+ of 200 has no train row \(folds by user\)"):
        made(folder, tmp_path, "user", folds=200)
    made(folder, tmp_path)
    with pytest.raises(ConfigError, match="was started with other folds or another log"):
        made(folder, tmp_path, folds=4)
