"""Amazon Electronics: JSON reviews and Python-literal products, gzipped; a wrong line is named."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest

from prerank.config import ConfigError, Data
from prerank.data import DataError, prepare
from prerank.datasets import amazon, resolve
from prerank.schema import Feature
from tests.datasets.tiny import write

REVIEWS, META = "reviews_Electronics_5.json.gz", "meta_Electronics.json.gz"


@pytest.fixture
def official(tmp_path: Path) -> Path:
    return write("amazon", tmp_path / "official")


def settings(folder: Path, **more: object) -> Data:
    return Data.model_validate({"recipe": "amazon", "options": {"from": str(folder)}, **more})


def inserted(path: Path, line: str) -> None:
    lines = gzip.decompress(path.read_bytes()).split(b"\n")
    lines.insert(1, line.encode())
    path.write_bytes(gzip.compress(b"\n".join(lines)))


def test_tables(official: Path) -> None:
    data = resolve(settings(official))
    log, items = pl.read_parquet(data.log or ""), pl.read_parquet(data.items or "")
    assert data.users is None
    assert (log.height, log.columns) == (96, ["user_id", "asin", "overall", "time"])
    assert log.row(9)[:2] == ("A0000000000001", "B000000001")
    assert items.rows() == [
        ("B000000000", ["Computers & Accessories", "Cables, Wires", "Audio"], 9.99, ""),
        ("B000000001", [], None, None),
        ("B000000002", ["Audio"], 5.0, "Sony"),
    ]


def test_two_and_four_fields_and_positive_from_four(official: Path) -> None:
    data = resolve(settings(official))
    dataset = prepare(data)
    assert (len(dataset.schema.fields("user")), len(dataset.schema.fields("item"))) == (2, 4)
    assert dataset.labels[:, 0].tolist() == (pl.read_parquet(data.log or "")["overall"] >= 4).cast(pl.Float64).to_list()
    assert (dataset.items["categories"] > 2).sum(1).tolist()[:3] == [3, 0, 1]


def test_the_means_are_blind_to_everything_but_train(official: Path) -> None:
    """Turning every test row's stars over moves no column of any row."""
    before = prepare(resolve(settings(official)))
    test = set(before.rows("test").tolist())
    path = official / REVIEWS
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    turned = [line.replace('"overall": ', '"overall": 6-') if n in test else line for n, line in enumerate(lines)]
    stars = {f"6-{s}.0": f"{6 - s}.0" for s in range(1, 6)}
    for old, new in stars.items():
        turned = [line.replace(old, new) for line in turned]
    path.write_bytes(gzip.compress("\n".join(turned).encode()))
    after = prepare(resolve(settings(official)))
    assert (before.labels != after.labels).sum() > 0
    for name in ("user_mean_rating", "item_mean_rating"):
        assert (before.log[name] == after.log[name]).all()


def test_blocks_are_the_whole(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pl.read_parquet(resolve(settings(official)).log or "")
    monkeypatch.setattr(amazon, "BLOCK", 7)
    again = resolve(settings(official, cache=str(official.parent / "other")))
    assert pl.read_parquet(again.log or "").equals(whole)


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        (REVIEWS, "{'asin': 'B1'}", r"line 2: is no review: "),
        (REVIEWS, '{"reviewerID": "A", "asin": "B", "overall": 5.0}', r"line 2: is no review: .*unixReviewTime"),
        (REVIEWS, '{"reviewerID": "A", "asin": "B", "overall": "5", "unixReviewTime": 1}', r"line 2: is no review: .*overall"),
        (REVIEWS, '{"reviewerID": "A", "asin": "B", "overall": 6.0, "unixReviewTime": 1}', r"line 2: overall must be from 1 to 5, got 6"),
        (META, "{'asin': 'B000000003', 'title': ", r"line 2: is no product written as a Python literal; got "),
        (META, "{'asin': 'B000000003', 'price': 'cheap'}", r"line 2: is no product"),
        (META, "{'title': 'x'}", r"line 2: lacks asin"),
        (META, "['asin']", r"line 2: is no product"),
        (META, "__import__('os').getcwd()", r"line 2: is no product"),  # a literal is read, never run
    ],
)
def test_a_wrong_line_is_named(official: Path, name: str, line: str, said: str) -> None:
    inserted(official / name, line)
    with pytest.raises(DataError, match=f"{name}' {said}") as caught:
        resolve(settings(official))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [REVIEWS, META])
@pytest.mark.parametrize("keep", [0.5, 0.95])
def test_a_cut_file_is_noticed(official: Path, name: str, keep: float) -> None:
    content = (official / name).read_bytes()
    (official / name).write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(DataError, match=f"{name}'"):
        resolve(settings(official))


def test_what_is_not_gzipped_is_one_line(official: Path) -> None:
    (official / REVIEWS).write_text("{}\n")
    with pytest.raises(DataError, match=rf"{REVIEWS}': is not a whole gzip file: Not a gzipped file"):
        resolve(settings(official))


def test_the_stars_are_no_feature(official: Path) -> None:
    features = (Feature(name="stars", column="overall", side="user", kind="numeric"),)
    with pytest.raises(ConfigError, match="feature 'stars': column 'overall' cannot be a feature: the label is made from it"):
        resolve(settings(official, features=features))
