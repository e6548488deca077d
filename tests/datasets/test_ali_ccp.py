"""Ali-CCP: rows and their common features meet again; the official split; a wrong line is named."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prerank.config import Data
from prerank.data import DataError, prepare
from prerank.datasets import ali_ccp, notes, resolve, stream
from tests.datasets.tiny import features, write


@pytest.fixture
def official(tmp_path: Path) -> Path:
    return write("ali_ccp", tmp_path / "official")


def settings(folder: Path, **more: object) -> Data:
    return Data.model_validate({"recipe": "ali_ccp", "options": {"from": str(folder)}, **more})


def test_the_tiny_files_are_as_the_page_says(official: Path) -> None:
    first = (official / "common_features_train.csv").read_text().split("\n")[0]
    assert first == "train0,5,109_14\x02001\x030.5\x01109_14\x02002\x031.5\x01101\x021000\x031.0\x01121\x0298\x031.0\x01129\x021214\x031.0"


def test_tables(official: Path) -> None:
    data = resolve(settings(official))
    log, items = pl.read_parquet(data.log or ""), pl.read_parquet(data.items or "")
    assert data.users is None
    first = log.row(0, named=True)
    assert {n: v for n, v in first.items() if v is not None} == {
        "click": 1, "conversion": 1, "user_id": 1000, "user_121": 98, "user_129": 1214, "item_id": 20500, "context_301": 1, "split": 0,
    }  # fmt: skip
    assert log["user_id"].to_list()[:8] == [1000, 1001, 1002, 1003, 1004, 1005, 1000, 1001]
    assert log["user_124"].to_list()[:3] == [None, 3, 3]  # user 0 has none
    assert items.columns == ["item_id", "item_206", "item_207", "item_216"]
    assert items.rows()[:2] == [(20500, 0, None, 9), (20501, 1, None, 9)]
    assert notes(Path(data.log or "").parent)["conversions_without_click_dropped"] == 1


def test_parts_are_the_whole(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pl.read_parquet(resolve(settings(official)).log or "")
    monkeypatch.setattr(stream, "BLOCK", 512)
    again = resolve(settings(official, cache=str(official.parent / "other")))
    assert pl.read_parquet(again.log or "").equals(whole)


def test_the_official_files_are_the_split(official: Path) -> None:
    dataset = prepare(resolve(settings(official)))
    assert dataset.split.tolist()[60:] == [2] * 20
    assert set(dataset.split.tolist()[:60]) == {0, 1}
    assert 0 < (dataset.split == 1).sum() < 20
    assert list(dataset.schema.objectives) == ["click", "conversion"]
    assert dataset.labels.sum(0).tolist() == [20 + 7, 10 + 4]


def test_a_field_is_found_wherever_it_stands() -> None:
    text = pl.Series([
        features(f101="7:1.0", f121="8:0.5"),
        features(f1101="1:1.0", f101__14="2:1.0", f101="-3:1.0", f121="4:1.0"),  # fields that end or begin alike; no feature is negative
        features(f121="101:1.0 5:1.0"),  # a feature that looks like the field; the first of several
    ])  # fmt: skip
    assert ali_ccp.fields(text, {"a": "101", "b": "121"}).rows() == [(7, 8), (None, 4), (None, 101)]


@given(st.lists(st.tuples(st.sampled_from(["101", "121", "1", "109_14", "10"]), st.integers(0, 130), st.floats(0, 9)), min_size=1))
def test_fields_against_a_plain_parser(triples: list[tuple[str, int, float]]) -> None:
    text = "\x01".join(f"{field}\x02{feature}\x03{value}" for field, feature, value in triples)
    first = {field: feature for field, feature, _ in reversed(triples)}
    wanted = {"a": "101", "b": "121", "c": "109_14", "d": "10"}
    assert ali_ccp.fields(pl.Series([text]), wanted).row(0) == tuple(first.get(field) for field in wanted.values())


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("sample_skeleton_train.csv", "5,0,0,train0,1", " line 2: has 5 of 6 columns"),
        ("sample_skeleton_train.csv", "5,2,0,train0,1," + features(f205="1:1.0"), " line 2: click must be one of 0, 1; got 2"),
        ("sample_skeleton_train.csv", "5,0,0,nobody,1," + features(f205="1:1.0"),
         ": the common features 'nobody' are not in 'common_features_train.csv'"),
        ("sample_skeleton_test.csv", "5,0,0,test0,1," + features(f206="1:1.0"), ": every row must have field 205, "),
        ("common_features_test.csv", "other,1," + features(f121="1:1.0"), ": every row must have field 101, "),
        ("common_features_test.csv", "test0,1," + features(f101="1:1.0"), ": the index 'test0' stands for two different users"),
        ("common_features_train.csv", "other,1,", " line 2: features must be text, got 'nothing'"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(official: Path, name: str, line: str, said: str) -> None:
    path = official / name
    rows = path.read_text().split("\n")
    rows.insert(1, line)
    path.write_text("\n".join(rows))
    with pytest.raises(DataError, match=f"{name}'{said}") as caught:
        resolve(settings(official))
    assert "\n" not in str(caught.value)
