"""RecSys Challenge 2017: tab-separated exports with a table's name before each column; one row a user and item."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from prerank.config import ConfigError, Data
from prerank.data import DataError, prepare
from prerank.datasets import notes, resolve
from prerank.datasets.recsys2017 import KINDS
from prerank.schema import Feature
from tests.datasets.tiny import write


@pytest.fixture
def official(tmp_path: Path) -> Path:
    return write("recsys2017", tmp_path / "official")


def settings(folder: Path, **more: object) -> Data:
    return Data.model_validate({"recipe": "recsys2017", "options": {"from": str(folder)}, **more})


def test_tables(official: Path) -> None:
    data = resolve(settings(official))
    log, users, items = (pl.read_parquet(p or "") for p in (data.log, data.users, data.items))
    assert log.columns == ["user_id", "item_id", "created_at", *KINDS]
    rows = {row[:2]: row[2:] for row in log.iter_rows()}
    assert len(rows) == 60
    assert rows[1, 100] == (1478003600, 1, 0, 1, 0, 0, 0)  # shown, and bookmarked later: 1 + 101 % 5 = 2
    assert rows[2, 100] == (1478007200, 1, 0, 0, 0, 0, 0)
    assert users["jobroles"].to_list()[:2] == ["0", "11,12"]
    assert users["edu_fieldofstudies"].to_list()[:3] == [None, None, "1,4"]
    assert items["latitude"].to_list()[:2] == [None, 149.1]
    assert items["created_at"].to_list()[:3] == [1470000100, None, 1470000102]  # written null
    assert notes(Path(data.log or "").parent)["pairs_of_recruiters_alone"] == 1


def test_a_deletion_and_a_recruiter_are_no_positive(official: Path) -> None:
    data = resolve(settings(official))
    labels = prepare(data).labels[:, 0].tolist()
    log = pl.read_parquet(data.log or "")
    assert labels == [float(r["click"] or r["bookmark"] or r["reply"]) for r in log.iter_rows(named=True)]
    assert log.filter((pl.col("delete") == 1) | (pl.col("recruiter") == 1)).height > 0


def test_both_sides_keep_their_own_columns(official: Path) -> None:
    """career_level, country and created_at exist on both sides, or in the log."""
    dataset = prepare(resolve(settings(official)))
    assert (dataset.users["country"] == dataset.encoders["country"].encode(["de"])[0]).all()
    assert (dataset.items["item_country"] == dataset.encoders["item_country"].encode(["non_dach"])[0]).all()
    assert (dataset.items["item_title"] > 0).sum(1).tolist() == [2] * 10


def test_the_split_is_by_time(official: Path) -> None:
    data = resolve(settings(official))
    dataset, when = prepare(data), pl.read_parquet(data.log or "")["created_at"].to_numpy()
    parts = [when[dataset.split == s] for s in (0, 1, 2)]
    assert [len(p) for p in parts] == [42, 6, 12]
    assert parts[0].max() < parts[1].min() <= parts[1].max() < parts[2].min()


def test_plain_headers_do_too(official: Path) -> None:
    before = pl.read_parquet(resolve(settings(official)).log or "")
    path = official / "interactions.csv"
    header, rest = path.read_text().split("\n", 1)
    path.write_text("\t".join(name.rpartition(".")[2] for name in header.split("\t")) + "\n" + rest)
    assert pl.read_parquet(resolve(settings(official)).log or "").equals(before)


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("interactions.csv", "1\t100\t6\t1478000000", "line 2: interaction_type must be one of 0, 1, 2, 3, 4, 5; got 6"),
        ("interactions.csv", "1\t100\t1\tnull", "line 2: created_at must be a whole number .*, got 'nothing'"),
        ("interactions.csv", "1,100,1,1478000000", "line 2: has 1 of 4 columns"),
        ("users.csv", "1\t0\t3", "line 2: has 3 of 14 columns"),
        ("items.csv", "1\t1\t3\t1\t1\tde\t0\t0\tnorth\t1\t1\t\t", "line 2: latitude must be a number, got 'north'"),
    ],
)
def test_a_wrong_line_is_named(official: Path, name: str, line: str, said: str) -> None:
    path = official / name
    rows = path.read_text().split("\n")
    rows.insert(1, line)
    path.write_text("\n".join(rows))
    with pytest.raises(DataError, match=f"{name}' {said}"):
        resolve(settings(official))


@pytest.mark.parametrize("kind", KINDS)
def test_no_interaction_is_a_feature(official: Path, kind: str) -> None:
    features = (Feature(name="item_id", side="item"), Feature(name="x", column=kind, side="context"))
    with pytest.raises(ConfigError, match=f"feature 'x': column '{kind}' cannot be a feature"):
        resolve(settings(official, features=features))
