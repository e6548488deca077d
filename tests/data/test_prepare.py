"""Preparation against a naive reference in plain Python, its cache, and every kind of bad input."""

from __future__ import annotations

import errno
import math
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from prerank.config import Data
from prerank.data import DataError, Dataset, prepare
from prerank.data import columns as columns_module
from prerank.data import table as table_module
from prerank.data.hashing import uniform

from .conftest import FEATURES, ITEMS, LOG, USERS, Make, write_table

prepare_module = sys.modules["prerank.data.prepare"]  # its name in the package is the function


def rows_of(table: dict[str, list]) -> list[dict[str, Any]]:
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def reference_split(n: int) -> list[int]:
    return [2 if u < 0.2 else 1 if u < 0.4 else 0 for u in uniform(np.arange(n), 1)]


def vocabulary(values: list[Any], min_count: int = 1) -> dict[Any, int]:
    counts = Counter(v for v in values if v is not None)
    kept = [v for v, n in sorted(counts.items(), key=lambda vn: (-vn[1], vn[0])) if n >= min_count]
    return {v: i + 3 for i, v in enumerate(kept)}


def row_of(vocabulary: dict[Any, int], value: Any) -> int:
    return 1 if value is None else vocabulary.get(value, 2)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("batch", [3, 1 << 17])
def test_against_plain_python(make: Make, suffix: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "BATCH", batch)
    monkeypatch.setattr(table_module, "_BLOCK", 60 if batch == 3 else 1 << 20)
    dataset = prepare(make(suffix=suffix, time="seconds", request="seconds"))
    rows = rows_of(LOG)
    split = reference_split(len(rows))
    train = [r for r, s in zip(rows, split, strict=True) if s == 0]
    assert len({r["rating"] > 3 for r in train}) == 2, "the fixture's seed must leave both classes in train"
    users, items = {u["user"]: u for u in rows_of(USERS)}, {i["item"]: i for i in rows_of(ITEMS)}

    assert dataset.split.tolist() == split
    assert dataset.labels.tolist() == [[float(r["rating"] > 3)] for r in rows]
    assert dataset.ts is not None
    assert dataset.ts.tolist() == [r["seconds"] * 1000 for r in rows]
    assert dataset.request is not None
    assert dataset.request.tolist() == LOG["seconds"]
    assert [dataset.user_ids[int(u)] for u in dataset.user_row] == LOG["user"]
    assert [dataset.item_ids[int(i)] for i in dataset.item_row] == LOG["item"]
    assert dataset.user_ids.to_list()[:4] == USERS["user"]
    assert sorted(dataset.user_ids.to_list()[4:]) == [10, 11]
    for name, number in (("train", 0), ("validation", 1), ("test", 2)):
        assert dataset.rows(name).tolist() == [i for i, s in enumerate(split) if s == number]  # type: ignore[arg-type]

    ids = vocabulary([r["user"] for r in train])
    assert dataset.users["user"].tolist() == [row_of(ids, u) for u in dataset.user_ids]
    cities = vocabulary([users[r["user"]]["city"] if r["user"] in users else None for r in train])
    assert dataset.users["city"].tolist() == [row_of(cities, users.get(u, {}).get("city")) for u in dataset.user_ids]
    tabs = vocabulary([r["tab"] for r in train])
    assert dataset.log["tab"].tolist() == [row_of(tabs, r["tab"]) for r in rows]
    genres = vocabulary([g for r in train for g in (items.get(r["item"], {}).get("genres") or "").split("|") if g])
    for i, item in enumerate(dataset.item_ids):
        own = [row_of(genres, g) for g in (items.get(item, {}).get("genres") or "").split("|") if g] or [1]
        assert dataset.items["genres"][i].tolist() == own + [0] * (3 - len(own))
    lengths = [items[r["item"]]["length"] for r in train if r["item"] in items]
    mean = sum(lengths) / len(lengths)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in lengths) / len(lengths))
    expected = [(items[i]["length"] - mean) / deviation if i in items else 0.0 for i in dataset.item_ids]
    assert dataset.items["length"].tolist() == pytest.approx(expected)
    ages = sorted(users[r["user"]]["age"] for r in train if r["user"] in users and users[r["user"]]["age"] is not None)
    edges = sorted({e for e in (ages[len(ages) * k // 3] for k in (1, 2)) if e > ages[0]})
    for i, user in enumerate(dataset.user_ids):
        age = users.get(user, {}).get("age")
        assert dataset.users["age"][i] == (1 if age is None else 3 + sum(age >= e for e in edges))

    items_known = len(vocabulary([r["item"] for r in train]))
    values = {"user": len(ids), "city": len(cities), "tab": len(tabs), "genres": len(genres), "age": len(edges) + 1, "item": items_known}
    assert dataset.sizes == {name: n + 3 for name, n in values.items()}
    for name, column in (("user", "user"), ("tab", "tab")):
        known = vocabulary([r[column] for r in train])
        counted = Counter(row_of(known, r[column]) for r in train)
        assert dataset.counts[name].tolist() == [counted[i] for i in range(len(known) + 3)]
    counted = Counter(int(v) for r in train for v in dataset.items["genres"][dataset.item_ids.to_list().index(r["item"])] if v)
    assert dataset.counts["genres"].tolist() == [counted[i] for i in range(dataset.sizes["genres"])]


def test_formats_give_the_same_columns(make: Make) -> None:
    one, other = prepare(make(suffix="parquet")), prepare(make(suffix="csv"))
    assert one.path != other.path
    for side in ("users", "items", "log"):
        for name, column in getattr(one, side).items():
            assert column.tolist() == getattr(other, side)[name].tolist()
    assert one.labels.tolist() == other.labels.tolist()


def test_a_flat_log(make: Make) -> None:
    """Without tables, entities take the value of their last row in time; the log keeps every row's own."""
    late_first = {**LOG, "seconds": LOG["seconds"][::-1]}
    features = [{"name": "price", "side": "user", "kind": "numeric"}, {"name": "rating", "side": "item", "share": None}]
    dataset = prepare(make(log=late_first, users=None, items=None, features=features, time="seconds"))
    prices = [dataset.encoders["price"].encode([p])[0] for p in LOG["price"]]
    assert dataset.log["price"].tolist() == prices
    for user, value in zip(dataset.user_ids, dataset.users["price"], strict=True):
        assert value == prices[LOG["user"].index(user)]  # time runs backwards: the first row is the last in time
    by_position = prepare(make(log=late_first, users=None, items=None, features=features))
    for user, value in zip(by_position.user_ids, by_position.users["price"], strict=True):
        assert value == prices[len(LOG["user"]) - 1 - LOG["user"][::-1].index(user)]


def test_keys_are_equal_for_equal_columns(make: Make) -> None:
    dataset = prepare(make())
    assert dataset.item_key is None
    assert dataset.user_key is not None
    keys = dict(zip(zip(LOG["user"], LOG["tab"], strict=True), dataset.user_key.tolist(), strict=True))
    assert [keys[u, t] for u, t in zip(LOG["user"], LOG["tab"], strict=True)] == dataset.user_key.tolist()
    assert len(set(keys.values())) == len(keys)


def test_drop_and_duplicates(make: Make) -> None:
    twice = {k: v + v[:4] for k, v in LOG.items()}
    whole, kept = prepare(make(log=twice)), prepare(make(log=twice, deduplicate=True, drop="rating == 3"))
    assert len(whole) == 16
    expected = [i for i, r in enumerate(LOG["rating"]) if r != 3]
    assert kept.labels[:, 0].tolist() == [float(LOG["rating"][i] > 3) for i in expected]
    assert kept.split.tolist() == [reference_split(16)[i] for i in expected]  # dropped rows move no other row
    assert kept.rows("train").tolist() == np.flatnonzero(kept.split == 0).tolist()


def test_min_count_and_share(make: Make) -> None:
    log = {**LOG, "seen": [["a", "b"], ["a"], [], None, ["b"], ["q"], ["a"], [], ["c"], ["a"], [], ["b"]]}
    features = [
        {"name": "item", "side": "item", "min_count": 2},
        {"name": "seen", "side": "user", "kind": "sequence", "share": "item", "max_length": 2},
    ]
    dataset = prepare(make(log=log, items=None, features=features))
    train = [i for i, s in zip(LOG["item"], reference_split(12), strict=True) if s == 0]
    known = vocabulary(train, 2)
    assert dataset.sizes["item"] == len(known) + 3
    assert "seen" not in dataset.sizes
    for value, column in zip(log["seen"], dataset.log["seen"].tolist(), strict=True):
        own = [row_of(known, v) for v in value or []] or [1]
        assert column == own + [0] * (2 - len(own))
    assert dataset.counts["item"][2] == sum(n for v, n in Counter(train).items() if v not in known)


def test_derived_columns(make: Make) -> None:
    derive = [
        {"name": "mean", "kind": "target_mean", "by": "user", "label": "like", "smoothing": 1.0},
        {"name": "popular", "kind": "count", "by": "item"},
        {"name": "past", "kind": "history", "by": "user", "of": "item", "label": "like", "max_length": 2},
        {"name": "tab_mean", "kind": "target_mean", "by": "tab", "label": "like"},
    ]
    features = [
        {"name": "mean", "side": "user", "kind": "numeric"},
        {"name": "popular", "side": "item", "kind": "numeric"},
        {"name": "past", "side": "user", "kind": "sequence", "share": "item", "max_length": 2},
        {"name": "tab_mean", "side": "user", "kind": "numeric"},
        {"name": "item", "side": "item"},
    ]
    dataset = prepare(make(derive=derive, features=features, time="seconds"))
    split, rows = reference_split(12), rows_of(LOG)
    train = [r for r, s in zip(rows, split, strict=True) if s == 0]
    counts = Counter(r["item"] for r in train)
    own = [counts[r["item"]] - (s == 0) for r, s in zip(rows, split, strict=True)]
    assert dataset.log["popular"].tolist() == dataset.encoders["popular"].encode(own).tolist()
    served = [counts[i] for i in dataset.item_ids]
    assert dataset.items["popular"].tolist() == dataset.encoders["popular"].encode(served).tolist()
    items = vocabulary([r["item"] for r in train])
    for i, user in enumerate(dataset.user_ids):
        past = [row_of(items, r["item"]) for r in train if r["user"] == user and r["rating"] > 3][-2:] or [1]
        assert dataset.users["past"][i].tolist() == past + [0] * (2 - len(past))
    for i, row in enumerate(rows):
        before = [r for r in train if r["user"] == row["user"] and r["rating"] > 3 and r["seconds"] < row["seconds"]]
        past = [row_of(items, r["item"]) for r in before][-2:] or [1]
        assert dataset.log["past"][i].tolist() == past + [0] * (2 - len(past))
    overall = sum(r["rating"] > 3 for r in train) / len(train)
    for i, user in enumerate(dataset.user_ids):
        mine = [r["rating"] > 3 for r in train if r["user"] == user]
        expected = dataset.encoders["mean"].encode([(sum(mine) + overall) / (len(mine) + 1)])[0]
        assert dataset.users["mean"][i] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("kind", "validation", "test"), [("time", 0.2, 0.25), ("user", 0.2, 0.3), ("time", "1970-01-01 00:18:00", 0.1)])
def test_other_splits(make: Make, kind: str, validation: Any, test: Any) -> None:
    dataset = prepare(make(time="seconds", split={"kind": kind, "validation": validation, "test": test, "seed": 3}))
    assert sorted(np.concatenate([dataset.rows(s) for s in ("train", "validation", "test")]).tolist()) == list(range(12))  # type: ignore[arg-type]
    if kind == "time":
        assert (np.diff(dataset.split.astype(int)) >= 0).all()
        assert (dataset.split == 2).sum() == round(test * 12)
    else:
        assert all(len(set(dataset.split[dataset.user_row == u].tolist())) <= 1 for u in range(len(dataset.user_ids)))


def test_empty_parts_and_text_requests(make: Make) -> None:
    log = {**LOG, "req": [f"r{i // 3}" for i in range(12)]}
    dataset = prepare(make(log=log, request="req", split={"kind": "random", "validation": 0.0, "test": 0.0}))
    assert len(dataset.rows("validation")) == len(dataset.rows("test")) == 0
    assert dataset.request is not None
    assert len(set(dataset.request.tolist())) == 4
    assert (np.diff(dataset.request.reshape(4, 3), axis=1) == 0).all()


def test_a_folder_of_parts_is_one_log(make: Make, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for i, first in enumerate((0, 5, 6)):
        last = (5, 6, 12)[i]
        write_table({k: v[first:last] for k, v in LOG.items()}, tmp_path / "parts" / f"{i}.parquet")
    parts, whole = prepare(make().model_copy(update={"log": str(tmp_path / "parts")})), prepare(make())
    assert parts.split.tolist() == whole.split.tolist()
    assert parts.log["tab"].tolist() == whole.log["tab"].tolist()
    assert parts.user_key is not None
    assert whole.user_key is not None
    assert parts.user_key.tolist() == whole.user_key.tolist()


# the cache


def test_the_second_call_opens_the_cache(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make()
    seen: list[tuple[str, float]] = []
    first = prepare(data, progress=lambda stage, part: seen.append((stage, part)))
    assert {s for s, _ in seen} == {"reading the log", "writing columns"}
    assert all(0 < p <= 1 for _, p in seen)
    monkeypatch.setattr(prepare_module, "_build", None)
    again = prepare(data)
    assert again.path == first.path
    assert again.fingerprint == first.fingerprint == first.path.name


def test_changes_are_noticed(make: Make) -> None:
    data = make()
    marks = {prepare(data).fingerprint}
    os.utime(data.log or "", ns=(1, 1))
    marks.add(prepare(data).fingerprint)
    os.utime(data.users or "", ns=(1, 1))
    marks.add(prepare(data).fingerprint)
    for change in (
        {"drop": "rating = 3"},
        {"width": 16},
        {"split": data.split.model_copy(update={"seed": 4})},
        {"users": None, "features": ()},
    ):
        marks.add(prepare(data.model_copy(update=change)).fingerprint)
    two = {"a": data.labels["like"], "b": data.labels["like"]}
    for labels in (two, dict(reversed(two.items()))):
        found = prepare(data.model_copy(update={"labels": labels}))
        assert found.schema.objectives == tuple(labels)
        marks.add(found.fingerprint)
    assert len(marks) == 9


def test_moving_files_or_the_cache_changes_nothing(make: Make, tmp_path: Path) -> None:
    data = make()
    mark = prepare(data).fingerprint
    (tmp_path / "moved").mkdir()
    for name in ("log", "users", "items"):
        os.rename(tmp_path / f"{name}.parquet", tmp_path / "moved" / f"{name}.parquet")
    moved = {n: str(tmp_path / "moved" / f"{n}.parquet") for n in ("log", "users", "items")}
    elsewhere = prepare(data.model_copy(update={**moved, "cache": str(tmp_path / "other")}))
    assert elsewhere.fingerprint == mark
    assert elsewhere.path == tmp_path / "other" / mark


@pytest.mark.parametrize("damage", ["dataset.json", "labels.npy", "users/age.npy", "encoders/encoders.json", "user_ids.parquet"])
def test_a_damaged_cache_is_prepared_again(make: Make, damage: str) -> None:
    data = make()
    whole = prepare(data)
    labels = whole.labels.tolist()
    target = whole.path / damage
    target.write_bytes(target.read_bytes()[:70])
    with pytest.raises(DataError):
        Dataset(whole.path)
    assert prepare(data).labels.tolist() == labels


def test_preparations_at_once(make: Make) -> None:
    data = make()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: prepare(data), range(4)))
    assert len({d.path for d in found}) == 1
    assert all(d.labels.tolist() == found[0].labels.tolist() for d in found)
    assert [p.name for p in found[0].path.parent.iterdir()] == [found[0].fingerprint]


def test_a_full_disk(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, rows: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    data = make()
    monkeypatch.setattr(columns_module.Writer, "append", full)
    with pytest.raises(DataError, match=r"^cache '.*': cannot be written: No space left on device$"):
        prepare(data)
    assert list(Path(os.environ["PRERANK_CACHE"]).iterdir()) == []


def test_an_interruption_leaves_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(stage: str, part: float) -> None:
        if stage == "writing columns":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(make(), progress=stop)
    assert list(Path(os.environ["PRERANK_CACHE"]).iterdir()) == []


def test_abandoned_folders_are_swept(make: Make) -> None:
    root = Path(os.environ["PRERANK_CACHE"])
    for name, age in ((".0.a.tmp", 0), (".0.b.tmp", 1)):
        (root / name).mkdir(parents=True)
        if age:
            os.utime(root / name, (1, 1))
    prepare(make())
    assert {p.name for p in root.iterdir() if p.name.startswith(".")} == {".0.a.tmp"}


def test_a_file_that_changes_while_it_is_read(make: Make) -> None:
    data = make()
    with pytest.raises(DataError, match="a file changed while it was read"):
        prepare(data, progress=lambda stage, part: os.utime(data.log or "", ns=(5, 5)))


def test_a_cache_that_cannot_be_written(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cache '.*': cannot be written"):
        prepare(make(cache=str(tmp_path / "file" / "cache")))


# bad input


def bad(column: str, row: int, value: Any) -> dict[str, list]:
    return {**LOG, column: [value if i == row else v for i, v in enumerate(LOG[column])]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"user_id": "usr"}, "data.user_id: log '{log}' has no column 'usr'; did you mean 'user'?"),
        ({"time": "secnds"}, "data.time: log '{log}' has no column 'secnds'; did you mean 'seconds'?"),
        ({"request": "x"}, "data.request: log '{log}' has no column 'x'; valid: "),
        ({"drop": "ratng = 3"}, "data.drop: log '{log}' has no column 'ratng'; did you mean 'rating'?"),
        ({"drop": "rating ="}, "data.drop: 'rating =' is no condition"),
        ({"drop": "rating > 0"}, "log '{log}': nothing to learn from, every row is dropped by data.drop"),
        ({"labels": {}}, "data.labels: at least one label is needed"),
        ({"labels": {"y": {"rule": "rating > 9"}}}, "label 'y': all 7 train rows are 0, a label needs two classes"),
        ({"labels": {"y": {"column": "price"}}}, "label 'y': 1 row has no value (missing, NaN or infinite), first at row 7 of log.parquet"),
        (
            {"features": [*FEATURES, {"name": "agee", "side": "user"}]},
            "feature 'agee': users and log have no column 'agee'; did you mean 'age'?",
        ),
        ({"features": [{"name": "tabb", "side": "context"}]}, "feature 'tabb': log has no column 'tabb'; did you mean 'tab'?"),
        ({"split": {"kind": "time"}}, "split.kind: time needs data.time"),
        ({"split": {"validation": 0.6, "test": 0.5}}, "split: validation 0.6 and test 0.5 leave no rows to train on"),
        ({"split": {"kind": "time", "validation": "1960-01-01", "test": 0.1}, "time": "seconds"}, "split: no row is left to train on"),
        ({"split": {"kind": "time", "timezone": "Nowhere"}, "time": "seconds"}, "split.timezone: 'Nowhere' is no time zone"),
        ({"derive": [{"name": "h", "kind": "history", "by": "user", "of": "item"}]}, "derived column 'h': history needs data.time"),
        ({"derive": [{"name": "h", "kind": "history", "by": "user"}], "time": "seconds"}, "derived column 'h': history needs of"),
        (
            {"derive": [{"name": "m", "kind": "target_mean", "by": "usr", "label": "lik"}]},
            "derived column 'm': log '{log}' has no column 'usr'",
        ),
        ({"derive": [{"name": "tab", "kind": "count", "by": "user"}]}, "derived column 'tab': the log already has a column of this name"),
        ({"features": [{"name": "a", "side": "user", "share": "b"}]}, "data.features: feature 'a': share must name a feature, got 'b'"),
    ],
)
def test_bad_settings(make: Make, settings: dict[str, Any], message: str) -> None:
    data = make(**settings)
    with pytest.raises(DataError) as caught:
        prepare(data)
    assert message.replace("{log}", str(data.log)) in str(caught.value)
    assert "Error" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize(
    ("log", "message"),
    [
        (bad("user", 3, None), "user id 'user': must not be missing, 1 value is, first at row 4 of log."),
        (bad("seconds", 5, None), "time 'seconds': must not be missing, 1 value is, first at row 6 of log."),
        (bad("rating", 2, None), "label 'like': 1 row has no value (missing, NaN or infinite), first at row 3 of log."),
        (bad("price", 2, "dear"), "feature 'price': 1 value is not a number, first at row 3 of log."),
        (bad("user", 2, 2**63), "user id 'user': 1 value does not fit a 64-bit integer (store such ids as text), first at row 3 of log."),
    ],
)
def test_bad_values(make: Make, suffix: str, log: dict[str, list], message: str) -> None:
    features = [{"name": "price", "side": "context", "kind": "numeric"}]
    with pytest.raises(DataError) as caught:
        prepare(make(log=log, users=None, items=None, suffix=suffix, time="seconds", features=features))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_nan_in_a_number_is_missing(make: Make) -> None:
    log = {**LOG, "price": [math.nan if p is None else p for p in LOG["price"]]}
    features = [{"name": "price", "side": "context", "kind": "numeric"}]
    assert prepare(make(log=log, users=None, items=None, features=features)).log["price"][6] == 0.0


def test_every_problem_is_named_at_once(make: Make) -> None:
    with pytest.raises(DataError) as caught:
        prepare(
            make(user_id="usr", time="tme", features=[{"name": "x", "side": "item"}], labels={"y": {"column": "z"}}, users=None, items=None)
        )
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["data.user_id", "data.time", "feature 'x'", "label 'y'"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([9, 8, 9, 12], "must hold each id once, 9 occurs 2 times"),
        ([9, None, 7, 12], "must not be missing, 1 value is, first at row 2"),
        (["9", "8", "x", "12"], "1 value is not an integer, first at row 3: 'x'"),
    ],
)
def test_bad_entity_tables(make: Make, ids: list, message: str) -> None:
    with pytest.raises(DataError) as caught:
        prepare(make(users={**USERS, "user": ids}))
    assert str(caught.value).startswith("users '")
    assert message in str(caught.value)


def test_ids_of_one_kind_meet_whatever_their_type(make: Make) -> None:
    """Integers as text, small integers and whole numbers as floats in the users table are the log's integers."""
    expected = prepare(make()).users["city"].tolist()
    for ids in (["9", "8", "7", "12"], [9.0, 8.0, 7.0, 12.0], pl.Series([9, 8, 7, 12], dtype=pl.UInt8)):
        assert prepare(make(users={**USERS, "user": ids})).users["city"].tolist() == expected


def test_no_log(make: Make) -> None:
    with pytest.raises(DataError, match=r"data.log: a log is needed"):
        prepare(Data())


def test_no_users_table(make: Make) -> None:
    with pytest.raises(DataError, match=r"^users 'nowhere.csv': no such file"):
        prepare(make().model_copy(update={"users": "nowhere.csv"}))
