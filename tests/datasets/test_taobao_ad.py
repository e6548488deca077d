"""TaobaoAd: official CSV files to tables; seven days train, the last day is test."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from prerank.config import ConfigError, Data
from prerank.data import DataError, prepare
from prerank.datasets import resolve
from prerank.schema import Feature
from tests.datasets.tiny import write


@pytest.fixture
def official(tmp_path: Path) -> Path:
    return write("taobao_ad", tmp_path / "official")


def settings(folder: Path, **more: object) -> Data:
    return Data.model_validate({"recipe": "taobao_ad", "options": {"from": str(folder)}, **more})


def test_tables(official: Path) -> None:
    data = resolve(settings(official))
    log, users, items = (pl.read_parquet(p or "") for p in (data.log, data.users, data.items))
    assert log.columns == ["user", "time_stamp", "adgroup_id", "pid", "clk"]
    assert log.row(1) == (8, 1494000008, 4, "430548_1007", 1)
    assert users.columns[0] == "user"  # userid in its own file
    assert users["new_user_class_level"].to_list() == [3, None]  # its name ends in a blank there
    assert users["pvalue_level"].to_list() == [None, 1]
    assert items["brand"].to_list() == [None, 95471, 95471, 95471, 95471]  # NULL
    assert items["price"].to_list() == [170.0, 340.0, 510.0, 680.0, 850.0]


def test_nine_and_six_fields(official: Path) -> None:
    schema = prepare(resolve(settings(official))).schema
    assert (len(schema.fields("user")), len(schema.fields("item"))) == (9, 6)
    with_place = prepare(resolve(settings(official, options={"from": str(official), "pid": True}))).schema
    assert [f.name for f in with_place.features if f.side == "context"] == ["pid"]


def test_days_of_shanghai(official: Path) -> None:
    """The tiny log holds three rows on each of the eight days, the first of them at midnight in UTC+8."""
    assert prepare(resolve(settings(official))).split.tolist() == [0] * 18 + [1] * 3 + [2] * 3


def test_a_user_without_profile_stays(official: Path) -> None:
    dataset = prepare(resolve(settings(official)))
    row = dataset.user_ids.to_list().index(9)
    assert {n: int(dataset.users[n][row]) for n in ("cms_segid", "age_level")} == {"cms_segid": 1, "age_level": 1}  # missing
    assert (dataset.user_row == row).sum() == 8


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("raw_sample.csv", "7,1494000100,1,430548_1007,1", "line 3: has 5 of 6 columns"),
        ("raw_sample.csv", "7,1494000100,1,430548_1007,1,2", "line 3: clk must be one of 0, 1; got 2"),
        ("raw_sample.csv", "7,yesterday,1,430548_1007,1,0", "line 3: time_stamp must be a whole number .*, got 'yesterday'"),
        ("raw_sample.csv", ",1494000100,1,430548_1007,1,0", "line 3: user must be a whole number .*, got 'nothing'"),
        ("user_profile.csv", "7,0,5,2,old,,3,0,3", "line 3: age_level must be a whole number .*, got 'old'"),
        ("ad_feature.csv", "63133,6406,83237,1,95471,free", "line 3: price must be a number, got 'free'"),
        ("ad_feature.csv", "NULL,6406,83237,1,95471,1.0", "line 3: adgroup_id must be a whole number .*, got 'nothing'"),
    ],
)
def test_a_wrong_line_is_named(official: Path, name: str, line: str, said: str) -> None:
    path = official / name
    lines = path.read_text().split("\n")
    lines.insert(2, line)
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=f"{name}' {said}"):
        resolve(settings(official))


def test_the_click_is_no_feature(official: Path) -> None:
    features = (Feature(name="x", column="clk", side="context", kind="numeric"),)
    with pytest.raises(ConfigError, match="column 'clk' cannot be a feature: the impression's outcome decides it"):
        resolve(settings(official, features=features))
