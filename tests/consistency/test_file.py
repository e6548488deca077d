from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from prerank.consistency import Columns, read
from prerank.data import DataError
from prerank.metrics import sigmoid

ALL = Columns(score="good", ranking="ranking", against="bad", item="item_id", stage="stage", bid="bid", truth="worth",
              user_events="user_events", item_events="item_events")  # fmt: skip


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_every_column_arrives(simulated: Path, tmp_path: Path, kind: str) -> None:
    frame = pl.read_parquet(simulated / "scored.parquet").sort("request_id", maintain_order=True)
    path = tmp_path / f"scored.{kind}"
    frame.write_parquet(path) if kind == "parquet" else frame.write_csv(path)
    found = read(path, ALL, logits="score")
    for name, column in (("s", "good"), ("against", "bad"), ("t", "ranking"), ("bid", "bid"), ("truth", "worth"),
                         ("user_events", "user_events"), ("item_events", "item_events"), ("request", "request_id")):  # fmt: skip
        np.testing.assert_allclose(getattr(found, name), frame[column].to_numpy(), rtol=1e-6)  # a CSV has six digits of a float32
    np.testing.assert_allclose(found.s_worth, sigmoid(frame["good"].to_numpy()), rtol=1e-6)
    assert found.t_worth is None
    names = ["impression", "ranking", "pre_ranking", "recall", "random"]
    assert [names[s] for s in found.stage] == frame["stage"].to_list()
    assert found.names == ("good", "ranking", "bad")


def test_requests_and_items_may_be_text(tmp_path: Path) -> None:
    numbers = [1.0, 2.0, 3.0, 4.0]
    columns = {"request_id": ["b", "b", "a", "a"], "item": ["x", "y", "x", "x"], "score": numbers, "teacher_score": numbers}
    pl.DataFrame(columns).write_parquet(tmp_path / "s.parquet")
    found = read(tmp_path / "s.parquet", Columns(item="item"))
    assert found.requests == 1
    assert found.said == ("1 candidates stand in their request already: left out, the one furthest in the cascade stays",
                          "1 of 2 requests have one candidate to compare: left out")  # fmt: skip


def test_missing_ranking_scores_are_counted(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("request_id,score,teacher_score\n1,.5,.1\n1,.4,\n1,.3,.2\n1,NaN,.4\n")
    found = read(tmp_path / "s.csv", Columns())
    assert found.said == ("1 of 4 candidates have no finite score of score: left out",
                          "1 of 3 candidates have no score of the ranking model: left out, but for the recall of logged stages",
                          )  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (Columns(score="god", ranking="rankin"), "--score: scored requests '{}' has no column 'god'; did you mean 'good'?\n"
                                                 "--ranking: scored requests '{}' has no column 'rankin'; did you mean 'ranking'?"),
        (Columns(score="stage", ranking="ranking"), "scored requests, column 'stage': "),
        (Columns(score="good", ranking="ranking", stage="user_events"), "column 'user_events': must be 0 to 4 or one of impression, "),
        (Columns(score="good", ranking="ranking", user_events="bid"), "scored requests, column 'bid': "),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(simulated: Path, columns, message) -> None:
    path = simulated / "scored.parquet"
    with pytest.raises(DataError) as error:
        read(path, columns)
    assert str(error.value).startswith(message.replace("{}", str(path)))


def test_an_unknown_stage_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("request_id,score,teacher_score,stage\n1,.5,.1,Impression\n1,.4,.2,rerank\n")
    with pytest.raises(DataError, match=r"column 'stage': must be one of impression, .*; got 'rerank' at row 2"):
        read(tmp_path / "s.csv", Columns(stage="stage"))
