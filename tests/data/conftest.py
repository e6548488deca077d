"""A small log with tables, in plain lists, and the settings that read it: what the tests of the room start from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import settings

from prerank.config import Data

settings.register_profile("prerank", deadline=None)  # a busy machine is no failure
settings.load_profile("prerank")

LOG = {
    "user": [7, 8, 7, 9, 7, 8, 10, 9, 7, 8, 11, 7],
    "item": ["a", "b", "c", "a", "b", "a", "d", "b", "e", "c", "a", "d"],
    "rating": [5, 1, 3, 4, 2, 5, 1, 4, 5, 2, 3, 4],
    "seconds": [1000, 1010, 1020, 1030, 1040, 1050, 1060, 1070, 1080, 1090, 1100, 1110],
    "tab": [1, 1, 2, 2, None, 1, 3, 3, 1, 2, 1, 1],
    "price": [1.0, 2.0, 3.0, 1.5, 2.5, 1.0, None, 2.0, 5.0, 3.5, 1.0, 4.0],
}
USERS = {"user": [9, 8, 7, 12], "age": [30, None, 20, 99], "city": ["x", "y", "x", "z"]}
ITEMS = {"item": ["a", "b", "c", "z"], "genres": ["g1|g2", "g2", None, "g9"], "length": [10.0, 20.0, 30.0, 40.0]}
FEATURES = [
    {"name": "user", "side": "user"},
    {"name": "age", "side": "user", "kind": "numeric", "bins": 3},
    {"name": "city", "side": "user"},
    {"name": "tab", "side": "context"},
    {"name": "genres", "side": "item", "kind": "multi", "max_length": 3},
    {"name": "length", "side": "item", "kind": "numeric"},
]

Make = Callable[..., Data]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """make(log=..., users=..., items=..., suffix=..., **settings) writes the tables and returns the settings that read them."""
    monkeypatch.setenv("PRERANK_CACHE", str(tmp_path / "cache"))

    def build(
        log: dict[str, Any] | None = None,
        users: dict[str, Any] | None = USERS,
        items: dict[str, Any] | None = ITEMS,
        suffix: str = "parquet",
        **settings: Any,
    ) -> Data:
        given: dict[str, Any] = {
            "user_id": "user",
            "item_id": "item",
            "labels": {"like": {"rule": "rating > 3"}},
            "split": {"kind": "random", "validation": 0.2, "test": 0.2, "seed": 1},
            "features": FEATURES,
        }
        for name, table in (("log", LOG if log is None else log), ("users", users), ("items", items)):
            if table is not None:
                given[name] = str(write_table(table, tmp_path / f"{name}.{suffix}"))
        return Data.model_validate(given | settings)

    return build


def write_table(table: dict[str, Any], path: Path) -> Path:
    frame = pl.DataFrame(table, strict=False)
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    return path
