"""Hidden vectors: each block is annotated before it is learned, by one ranker."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from prerank.config import Config, ConfigError
from prerank.data import Dataset, prepare
from prerank.teachers.progressive import annotate, by_time
from tests.teachers.conftest import config, numbered

BLOCKS = 6


def vectors(settings: Config, folder: Path, blocks: int = BLOCKS) -> tuple[Dataset, np.ndarray]:
    dataset = prepare(settings.data)
    return dataset, np.load(annotate(settings, dataset, folder, blocks=blocks))


def flipped(folder: Path, to: Path, rows: np.ndarray) -> Config:
    """The same log with other labels at some rows."""
    to.mkdir()
    log = pl.read_parquet(folder / "log.parquet")
    click = log["click"].to_numpy().copy()
    click[rows] = 1 - click[rows]
    log.with_columns(click=pl.Series(click)).write_parquet(to / "log.parquet")
    return config(to)


def test_a_block_knows_the_labels_before_it_and_no_others(folder: Path, tmp_path: Path) -> None:
    dataset, before = vectors(config(folder), tmp_path / "a")
    blocks = by_time(dataset.ts, BLOCKS)
    for b in (1, 3):
        later = np.concatenate(blocks[b:])
        train = later[dataset.split[later] == 0]
        _, after = vectors(flipped(folder, tmp_path / f"log-{b}", train), tmp_path / f"b-{b}")
        known = np.concatenate(blocks[: b + 1])  # blocks 0 .. b: what block b itself is told comes after its vectors
        assert np.array_equal(before[known], after[known], equal_nan=True)
        assert (np.abs(before - after)[np.concatenate(blocks[b + 1 :])].max(axis=1) > 1e-6).all()


def test_validation_and_test_rows_are_annotated_and_never_learned(folder: Path, tmp_path: Path) -> None:
    dataset, before = vectors(config(folder), tmp_path / "a")
    _, after = vectors(flipped(folder, tmp_path / "log", np.flatnonzero(dataset.split != 0)), tmp_path / "b")
    assert np.array_equal(before, after, equal_nan=True)
    first = by_time(dataset.ts, BLOCKS)[0]
    assert np.isnan(before[first]).all()
    assert np.isfinite(np.delete(before, first, axis=0)).all()


def test_killed_and_resumed_it_says_the_same(folder: Path, tmp_path: Path) -> None:
    dataset, whole = vectors(config(folder), tmp_path / "a")

    class Killed(Exception):
        pass

    def kill(line: str) -> None:
        if "block 3 of" in line:
            raise Killed

    with pytest.raises(Killed):
        annotate(config(folder), dataset, tmp_path / "b", blocks=BLOCKS, say=kill)
    lines: list[str] = []
    path = annotate(config(folder), dataset, tmp_path / "b", blocks=BLOCKS, say=lines.append)
    assert len(lines) == BLOCKS - 3
    assert np.array_equal(np.load(path), whole, equal_nan=True)
    with pytest.raises(ConfigError, match="its walk was started with other data or settings"):
        annotate(config(folder), dataset, tmp_path / "b", blocks=5)


def test_blocks_are_in_order_of_time_and_never_part_an_instant() -> None:
    ts = np.random.default_rng(0).integers(0, 40, 500)
    blocks = by_time(ts, 7)
    assert np.array_equal(np.sort(np.concatenate(blocks)), np.arange(500))
    for one, two in itertools.pairwise(blocks):
        assert ts[one].max() < ts[two].min()
    assert [len(b) for b in by_time(np.zeros(9, np.int64), 3)] == [9]


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ({"name": "mf", "width": 4}, {}, "model 'mf' is no ranker"),
        ({"name": "mlp", "hidden": [8], "id_head": 4, "id_history": True}, {}, "has histories"),
        ({"name": "lr"}, {}, "the model has none"),
        ({"name": "mlp", "hidden": [8]}, {"data.time": None}, "need data.time"),
        ({"name": "mlp", "hidden": [8]}, {"training.rehearsal": 1}, "learns each row once, and do not take it; got 1"),
    ],
)
def test_what_has_no_vectors_is_said(folder: Path, tmp_path: Path, model: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        vectors(config(folder, model, **changes), tmp_path / "a")
    with pytest.raises(ConfigError, match="blocks: must be at least 2"):
        vectors(config(folder), tmp_path / "b", blocks=1)


def test_a_log_of_one_block_is_annotated_by_nobody(tmp_path: Path) -> None:
    numbered(300).with_columns(ts=pl.lit(1_650_000_000)).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(ConfigError, match="all rows are of one instant"):
        vectors(config(tmp_path), tmp_path / "a")
