"""Stages, teachers, bids and the labels that are made of them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from prerank.batch import Stage
from prerank.config import Label, StageColumn, Take, Teacher, monitored
from prerank.config import Lists as ListSettings
from prerank.data.errors import DataError
from prerank.data.labels import Labels
from prerank.data.stages import StageReader, bid, teacher
from prerank.data.table import Table
from tests.data.conftest import write_table

OF_LOG = StageReader.of_log


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ({"column": "s"}, ["impression", "recall", "random", "pre_ranking"]),
        ({"column": "s"}, [0, 3, 4, 2]),
        ({"column": "s"}, [0.0, 3.0, 4.0, 2.0]),
        (
            {"column": "s", "values": {"show": "impression", "r": "recall", "x": "random", "coarse": "pre_ranking"}},
            ["show", "r", "x", "coarse"],
        ),
        ({"column": "s", "values": {1: "impression", 7: "recall", 9: "random", 5: "pre_ranking"}}, [1, 7, 9, 5]),
    ],
)
def test_stages_by_name_by_number_and_by_the_logs_own_values(setting: dict[str, object], values: list[object]) -> None:
    read = OF_LOG(StageColumn.model_validate(setting)).read(pl.Series("s", values))
    assert read.dtype == np.int8
    assert read.tolist() == [Stage.IMPRESSION, Stage.RECALL, Stage.RANDOM, Stage.PRE_RANKING]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["impression", None], "stage 's': must not be missing, 1 value is, first at row 2"),
        (["impression", "recal"], "stage 's': unknown value, first at row 2: 'recal'; did you mean 'recall'?"),
        ([0, 9, 9], "stage 's': unknown value, first at row 2: '9'"),
    ],
)
def test_stages_missing_or_unknown(values: list[object], message: str) -> None:
    with pytest.raises(DataError) as error:
        OF_LOG(StageColumn(column="s")).read(pl.Series("s", values))
    assert message in str(error.value)


def test_a_teacher_is_a_column_a_sum_or_an_ecpm() -> None:
    frame = pl.DataFrame({"a": [0.5, None, float("nan")], "b": [1.0, 2.0, 3.0], "bid": [2.0, 0.0, 1.0]})
    nan = np.nan
    np.testing.assert_allclose(teacher(Teacher(column="a"), frame), [0.5, nan, nan])
    np.testing.assert_allclose(teacher(Teacher(weighted={"a": 2.0, "b": -1.0}), frame), [2 * 0.5 - 1, nan, nan])
    np.testing.assert_allclose(teacher(Teacher.model_validate({"ecpm": {"bid": "bid", "of": "b"}}), frame), [2.0 * 1, 0.0 * 2, 1.0 * 3])
    with pytest.raises(DataError, match="teacher: 1 scores are infinite, first at row 1"):
        teacher(Teacher(column="a"), pl.DataFrame({"a": [float("inf")]}))
    with pytest.raises(ValidationError, match="exactly one of column, weighted, ecpm; got none"):
        Teacher()


def test_bids_are_not_negative() -> None:
    np.testing.assert_array_equal(bid(pl.Series("b", [1.5, None, 0.0])), np.array([1.5, 0, 0], np.float32))
    with pytest.raises(DataError, match=r"bid 'b': must be 0 or more; 2 are not, first at row 2: -1"):
        bid(pl.Series("b", [1.0, -1.0, -2.0]))
    frame = pl.DataFrame({"b": [1.0, -3.0], "p": [0.1, 0.2]})
    with pytest.raises(DataError, match=r"teacher, bid 'b': must be 0 or more; 1 is not, first at row 2: -3"):
        teacher(Teacher.model_validate({"ecpm": {"bid": "b", "of": "p"}}), frame)


def test_labels_of_a_cascade(tmp_path) -> None:  # type: ignore[no-untyped-def]
    log = {"click": [1, 0, None, None], "cart": [0, 0, None, None], "bid": [2.0, 3.0, None, 5.0]}
    table = Table(write_table(log, tmp_path / "log.parquet"), "log")
    settings = {
        "levels": Label(levels=("impressed", "click", "cart")),
        "sum": Label(weighted={"impressed": 0.5, "click": 2.0}),
        "ecpm": Label.model_validate({"ecpm": {"bid": "bid", "of": "click"}}),
        "paid": Label.model_validate({"ecpm": {"bid": "bid", "of": "impressed"}}),
    }
    labels = Labels(settings, table)
    assert labels.columns == ["click", "cart", "bid"]
    stage = np.array([0, 0, 1, 3], np.int8)
    found = labels.compute(pl.DataFrame(log), stage=stage)
    np.testing.assert_allclose(found, [[2, 2.5, 2.0, 2.0], [1, 0.5, 0.0, 3.0], [0, 0, 0, 0], [0, 0, 0, 0]])
    with pytest.raises(DataError, match="label 'levels': 1 row has no value"):
        labels.compute(pl.DataFrame(log), stage=np.array([0, 0, 1, 0], np.int8)[[0, 1, 2, 3]])
    with pytest.raises(DataError, match="label 'ecpm', bid 'bid': must be 0 or more"):
        labels.compute(pl.DataFrame({**log, "bid": [-1.0, 0, 0, 0]}), stage=stage)


def test_impressed_without_stages_is_one_everywhere_and_a_column_of_that_name_wins(tmp_path) -> None:  # type: ignore[no-untyped-def]
    log = {"click": [1, 0]}
    setting = {"sum": Label(weighted={"impressed": 1.0, "click": 1.0})}
    table = Table(write_table(log, tmp_path / "a.parquet"), "log")
    assert Labels(setting, table).compute(pl.DataFrame(log))[:, 0].tolist() == [2, 1]
    own = {"click": [1, 0], "impressed": [0, 5]}
    table = Table(write_table(own, tmp_path / "b.parquet"), "log")
    assert Labels(setting, table).compute(pl.DataFrame(own))[:, 0].tolist() == [1, 5]


@pytest.mark.parametrize(
    ("raw", "take"),
    [("all", Take()), (7, Take(count=7)), ({"ratio": 2}, Take(ratio=2)), ({}, Take()),
     ({"count": 3, "popularity": 0.75}, Take(count=3, popularity=0.75))],
)  # fmt: skip
def test_how_many_of_a_stage_may_be_written_short(raw: object, take: Take) -> None:
    assert ListSettings.model_validate({"stages": {"random": raw}}).stages == {"random": take}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"stages": {"ranking": {"popularity": 1, "count": 3}}}, "stages.ranking: popularity belongs to random"),
        ({"stages": {"ranking": {"count": 3, "ratio": 1}}}, "takes a count or a ratio, not both"),
        ({"stages": {}}, "at least one stage; got none"),
        ({"stages": {"rank": 3}}, "Input should be 'impression'"),
        ({"stages": {"ranking": 0}}, "greater than or equal to 1"),
        ({"stages": {"ranking": "some"}}, "valid dictionary or instance of Take"),
        ({"by": "session"}, "Input should be 'request' or 'user'"),
    ],
)
def test_wrong_lists_are_named(raw: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        ListSettings.model_validate(raw)
    assert message in str(error.value)


def test_what_can_be_monitored() -> None:
    assert monitored("auc") is None
    assert monitored("recall@100") == ("recall", 100)
    for wrong in ("auc@1", "recall", "ndcg@0", "ndcg@x", "f1"):
        with pytest.raises(ValueError, match="must be auc, gauc, logloss, recall@K or ndcg@K"):
            monitored(wrong)
