"""Serving's running statistics say, moment by moment, what preparation wrote into the columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from prerank.config import AsOf, Data
from prerank.data import DataError, prepare
from prerank.data.asof_state import RunningState

ASOF = [
    {"name": "u", "by": "user", "label": "y"},
    {"name": "ud", "by": "user", "label": "y", "half_life": "20s"},
    {"name": "a", "by": "author", "label": "y", "half_life": "2m", "smoothing": 3.0},
    {"name": "ut", "by": ["user", "tab"], "label": "y"},
    {"name": "d", "by": "seconds", "label": "y", "bins": 3},
    {"name": "seen", "by": "item"},
    {"name": "recent", "by": "item", "half_life": "30s"},
    {"name": "idle", "by": "user", "since_last": True},
]
N = 1200


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    random = np.random.default_rng(2)
    item = random.integers(0, 12, N)
    return pl.DataFrame(
        {
            "user": random.integers(0, 30, N), "item": item, "tab": pl.Series(random.integers(0, 3, N)).replace(2, None),
            "author": [None if i == 3 else f"author {i % 4}" for i in item], "seconds": item * 1.5,
            "ts": 1_650_000_000_000 + 1000 * random.integers(0, 400, N), "y": (random.random(N) < 0.4).astype(np.int64),
        }
    )  # fmt: skip


@pytest.mark.parametrize("delay", [None, "45s"])
def test_parity_with_the_prepared_columns(frame: pl.DataFrame, tmp_path: Path, delay: str | None) -> None:
    """Shuffled log, ties in time, missing keys: every column of every row to a float's last bits; saved and loaded in the middle."""
    frame.write_parquet(tmp_path / "log.parquet")
    data = Data.model_validate(
        {"log": str(tmp_path / "log.parquet"), "user_id": "user", "item_id": "item", "time": "ts", "labels": {"y": {"column": "y"}},
         "split": {"kind": "time"}, "asof": ASOF, "label_delay": delay, "cache": str(tmp_path / "cache"),
         "features": [{"name": s["name"], "side": "context" if s["name"] == "ut" else "user", "kind": "numeric"} for s in ASOF]}
    )  # fmt: skip
    dataset = prepare(data)

    def fresh() -> RunningState:
        return RunningState(data.asof, 45_000 if delay else 0, dataset.edges)

    state = fresh()
    in_time = frame.with_row_index("row").sort("ts", maintain_order=True)
    for count, (_, moment) in enumerate(in_time.group_by("ts", maintain_order=True)):
        if count == 200:
            state.save(tmp_path / "state.npz")
            state = fresh()
            state.load(tmp_path / "state.npz")
        columns = {c: moment[c] for c in ("user", "item", "tab", "author", "seconds")}
        found, rows = state.read(columns, moment["ts"][0]), moment["row"].to_numpy()
        for name, values in found.items():
            encoded = dataset.encoders[name].encode(pl.Series(values))
            np.testing.assert_allclose(dataset.log[name][rows], encoded, rtol=2e-6, atol=2e-6, err_msg=name)
        state.observe(columns, moment["ts"].to_numpy(), {"y": moment["y"].to_numpy()})


def test_bad_input_is_named(tmp_path: Path) -> None:
    state = RunningState([AsOf(name="u", by=("user",), label="y")])
    state.observe({"user": [1]}, [1000], {"y": [1]})
    with pytest.raises(DataError, match="time must not run backwards; 500 came after 1000"):
        state.observe({"user": [1]}, [500], {"y": [1]})
    with pytest.raises(DataError, match="time must not run backwards; 10 came after 1000"):
        state.read({"user": [1]}, 10)
    with pytest.raises(DataError, match="statistic 'u' needs the key column 'user'"):
        state.read({"usr": [1]}, 2000)
    state.save(tmp_path / "s.npz")
    with pytest.raises(DataError, match="were saved with other settings"):
        RunningState([AsOf(name="u", by=("user",))]).load(tmp_path / "s.npz")


def test_many_keys_fit() -> None:
    state = RunningState([AsOf(name="n", by=("user",))])
    users = list(range(5000))
    state.observe({"user": users}, np.arange(5000), {})
    np.testing.assert_allclose(state.read({"user": [*users, 9999]}, 10_000)["n"], [*np.full(5000, np.log(2.0)), 0.0])
