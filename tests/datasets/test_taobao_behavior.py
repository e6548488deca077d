"""UserBehavior: events become pairs; who has too few impressions or positives is dropped and counted."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from prerank.config import ConfigError, Data
from prerank.data import DataError, prepare
from prerank.datasets import notes, resolve
from prerank.schema import Feature
from tests.datasets.tiny import lines, write

FEW = {"min_impressions": 40, "min_positives": 20}


@pytest.fixture
def official(tmp_path: Path) -> Path:
    return write("taobao_behavior", tmp_path / "official")


def settings(folder: Path, **more: object) -> Data:
    return Data.model_validate({"recipe": "taobao_behavior", "options": {"from": str(folder), **FEW}, **more})


def test_tables(official: Path) -> None:
    data = resolve(settings(official))
    log, items = pl.read_parquet(data.log or "").sort("user_id", "item_id"), pl.read_parquet(data.items or "")
    assert (log.columns, data.users) == (["user_id", "item_id", "time", "cart", "fav", "buy"], None)
    assert log.rows()[:4] == [
        (1, 0, 1511544070, 1, 0, 0),
        (1, 1, 1511544130, 0, 0, 0),
        (1, 2, 1511544190, 0, 0, 1),
        (1, 3, 1511544250, 0, 0, 0),
    ]
    assert dict(items.iter_rows())[5] == 1002
    said = notes(Path(data.log or "").parent)
    assert said["rows"] == {"log": 80, "items": 40}
    assert {n: said[n] for n in ("events_outside_the_period", "pairs_never_viewed", "users_dropped")} == {
        "events_outside_the_period": 1,
        "pairs_never_viewed": 40,
        "users_dropped": 2,
    }


@pytest.mark.parametrize(
    ("more", "users"),
    [({}, []), ({"min_impressions": 41}, []), ({"min_impressions": 40, "min_positives": 21}, []), (FEW, [1, 2]),
     ({"min_impressions": 40, "min_positives": 0}, [1, 2, 3]), ({"min_impressions": 0, "min_positives": 1}, [1, 2])],
)  # fmt: skip
def test_who_stays(official: Path, more: dict[str, int], users: list[int]) -> None:
    """By default 100 impressions and 20 positives: nobody here."""
    data = Data(recipe="taobao_behavior", options={"from": str(official), **more})
    if not users:
        with pytest.raises(DataError, match="table 'log': no row of the official files is kept"):
            resolve(data)
        return
    assert sorted(pl.read_parquet(resolve(data).log or "")["user_id"].unique()) == users


def test_both_ends_of_the_period(tmp_path: Path) -> None:
    times = {1: 1511539199, 2: 1511539200, 3: 1512316799, 4: 1512316800, 5: -7}
    (tmp_path / "o").mkdir()
    lines(tmp_path / "o" / "UserBehavior.csv", *(f"1,{item},9,pv,{time}" for item, time in times.items()))
    options = {"from": str(tmp_path / "o"), "min_impressions": 0, "min_positives": 0}
    assert sorted(pl.read_parquet(resolve(Data(recipe="taobao_behavior", options=options)).log or "")["item_id"]) == [2, 3]


def test_the_label_is_any_of_the_three(official: Path) -> None:
    data = resolve(settings(official))
    dataset = prepare(data)
    log = pl.read_parquet(data.log or "")
    assert dataset.labels[:, 0].tolist() == [float(any(row)) for row in log.select("cart", "fav", "buy").iter_rows()]
    assert (dataset.labels[:, 0] == 1).sum() == 40


def test_the_sum_of_ranktower(official: Path) -> None:
    labels = {"relevance": {"weighted": {"cart": 1, "fav": 1, "buy": 1}}}
    assert prepare(resolve(settings(official, labels=labels))).labels.sum() == 40


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1,2,3,click,1511544070", "line 3: behavior must be one of pv, cart, fav, buy; got 'click'"),
        ("1,2,3,pv", "line 3: has 4 of 5 columns"),
        ("1,2,3,pv,", "line 3: time must be a whole number .*, got 'nothing'"),
        ("user,item,category,behavior,time", "line 3: user_id must be a whole number .*, got 'user'"),
    ],
)
def test_a_wrong_line_is_named(official: Path, line: str, said: str) -> None:
    path = official / "UserBehavior.csv"
    rows = path.read_text().split("\n")
    rows.insert(2, line)
    path.write_text("\n".join(rows))
    with pytest.raises(DataError, match=f"UserBehavior.csv' {said}"):
        resolve(settings(official))


def test_feedback_is_no_feature(official: Path) -> None:
    features = (Feature(name="item_id", side="item"), Feature(name="cart", side="context"))
    with pytest.raises(ConfigError, match="feature 'cart': column 'cart' cannot be a feature"):
        resolve(settings(official, features=features))
