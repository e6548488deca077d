"""KuaiRand: official files to tables; duplicates dropped and counted; leaks refused with the reason."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest

from prerank.config import ConfigError, Data
from prerank.data import DataError, prepare
from prerank.datasets import notes, resolve
from prerank.datasets.kuairand import OUTCOME_COLUMNS
from prerank.schema import Feature
from tests.datasets.conftest import LOG, LOG_HEADER, USER_HEADER, USER_ROWS, write_csv


def settings(folder: Path, **more: object) -> Data:
    return Data.model_validate({"recipe": "kuairand", "options": {"from": str(folder)}, **more})


def test_tables(kuairand: Path) -> None:
    data = resolve(settings(kuairand))
    log, users, items = (pl.read_parquet(p or "") for p in (data.log, data.users, data.items))
    assert log.columns == ["user_id", "video_id", "time_ms", "tab", "hour", "date", "long_view", "is_click", "is_like"]
    assert log.rows()[0] == (0, 7, 1651676400000, 1, 23, 20220504, 1, 1, 0)
    assert log["hour"].to_list() == [23, 23, 0, 0, 9]
    assert (log["time_ms"].dtype, log["is_click"].dtype) == (pl.Int64, pl.Int8)
    assert users["follow_user_num_range"].to_list() == ["500+", "(250,500]"]
    assert users["onehot_feat4"].to_list() == [1, None]  # written 1.0, and nothing
    assert users["is_live_streamer"].to_list() == [1, -124]
    assert items["tag"].to_list() == ["39", "39,68"]
    assert items["music_type"].to_list() == [9, None]
    assert items["video_duration"].to_list() == [87433, None]


def test_exact_duplicates_are_dropped_and_counted(kuairand: Path) -> None:
    """Equal in every official column, also in those that are not kept: rows 3 and 4 are, row 5 differs in its play time."""
    data = resolve(settings(kuairand))
    assert pl.read_parquet(data.log or "")["user_id"].to_list() == [0, 1, 1, 1, 0]
    assert notes(Path(data.log or "").parent)["duplicates_dropped"] == 1


def test_the_earlier_log_comes_first_when_it_is_there(kuairand: Path) -> None:
    early = "5,7,20220408,100,1649350800000,0,0,0,0,0,0,1,61802,49866,0,0,0,0,1"
    write_csv(kuairand / "log_standard_4_08_to_4_21_pure.csv", [LOG_HEADER, early])
    write_csv(kuairand / "log_random_4_22_to_5_08_pure.csv", [LOG_HEADER, early.replace("5,7", "6,7", 1)])
    assert pl.read_parquet(resolve(settings(kuairand)).log or "")["user_id"].to_list() == [5, 0, 1, 1, 1, 0]


def test_the_split_is_by_days_of_shanghai(kuairand: Path) -> None:
    """1651680000000 is 5 May 00:00 in UTC+8 (4 May in UTC): validation, not train."""
    dataset = prepare(resolve(settings(kuairand)))
    assert dataset.split.tolist() == [0, 0, 1, 1, 2]
    assert list(dataset.schema.objectives) == ["long_view", "is_click"]
    assert {f.name for f in dataset.schema.features if f.side == "context"} == {"tab", "hour"}


def test_tags_are_separated_by_commas(kuairand: Path) -> None:
    dataset = prepare(resolve(settings(kuairand)))
    assert (dataset.items["tag"] > 0).sum(1).tolist() == [1, 2]


def test_statistics_of_the_whole_period_are_refused(kuairand: Path) -> None:
    with pytest.raises(ConfigError, match=r"option statistics: video_features_statistic_pure.csv .*the test days included: a leak"):
        resolve(Data(recipe="kuairand", options={"from": str(kuairand), "statistics": True}))
    assert resolve(Data(recipe="kuairand", options={"from": str(kuairand), "statistics": False})).log


@pytest.mark.parametrize("column", OUTCOME_COLUMNS)
def test_what_the_outcome_decides_is_no_feature(kuairand: Path, column: str) -> None:
    features = (Feature(name="video_id", side="item"), Feature(name="x", column=column, side="context", kind="numeric"))
    with pytest.raises(ConfigError, match=f"feature 'x': column '{column}' cannot be a feature: the impression's outcome decides it"):
        resolve(settings(kuairand, features=features))


def test_no_default_feature_is_an_outcome(kuairand: Path) -> None:
    assert not {f.source for f in resolve(settings(kuairand)).features} & set(OUTCOME_COLUMNS)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0,7,20220504,2300,soon,1,0,0,0,0,0,1,61802,49866,0,0,0,0,1", "line 3: time_ms must be a whole number .*, got 'soon'"),
        ("0,7,20220504,2300,,1,0,0,0,0,0,1,61802,49866,0,0,0,0,1", "line 3: time_ms must be a whole number .*, got 'nothing'"),
        ("0,7,20220504,2300,1651676400000,0.5,0,0,0,0,0,1,61802,49866,0,0,0,0,1", "line 3: is_click must be .*, got '0.5'"),
        ("0,7,20220504,2300,1651676400000,1,0,0,0,0,0,1,61802,49866,0,0,0,0,1,1", " line 3: has 20 of 19 columns"),
        ("3000000000,7,20220504,2300,1651676400000,1,0,0,0,0,0,1,61802,49866,0,0,0,0,1", "line 3: user_id must be .*, got '3000000000'"),
        ("0,7,20220504,2300,1651676400000,1,0,0,0", "line 3: .*got 'nothing'"),
    ],
)
def test_a_wrong_line_is_named(kuairand: Path, line: str, said: str) -> None:
    write_csv(kuairand / "log_standard_4_22_to_5_08_pure.csv", [LOG_HEADER, LOG[0], line, LOG[1]])
    with pytest.raises(DataError, match=f"log_standard_4_22_to_5_08_pure.csv'.*{said}") as caught:
        resolve(settings(kuairand))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_a_cut_file_is_noticed(kuairand: Path, keep: float) -> None:
    path = kuairand / "user_features_pure.csv"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(DataError, match=r"user_features_pure.csv'.*cut|user_features_pure.csv'.*columns"):
        resolve(settings(kuairand))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "is empty"),
        ([USER_HEADER], "has a header and no rows"),
        ([USER_HEADER.replace("register_days,", "days,"), *USER_ROWS], "missing: register_days; got user_id"),
        (["<html><body>Not found</body></html>", "<p>"], "must have the official columns"),
    ],
)
def test_a_file_of_another_kind(kuairand: Path, lines: list[str], said: str) -> None:
    write_csv(kuairand / "user_features_pure.csv", lines)
    with pytest.raises(DataError, match=f"user_features_pure.csv': .*{said}"):
        resolve(settings(kuairand))


def test_a_compressed_file_under_the_plain_name_is_one_line(kuairand: Path) -> None:
    path = kuairand / "video_features_basic_pure.csv"
    path.write_bytes(gzip.compress(b"abc" * 10_000))
    with pytest.raises(DataError, match=r"video_features_basic_pure.csv'"):
        resolve(settings(kuairand))
