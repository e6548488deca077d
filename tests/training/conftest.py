"""A small planted world on disk: tastes decide clicks, and a two-tower can learn them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest


def planted_log(rows: int = 24_000, users: int = 300, items: int = 200, seed: int = 0, shuffled: bool = False) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    p, q = rng.normal(size=(users, 3)), rng.normal(size=(items, 3))
    popularity = rng.normal(size=items)
    u, i = rng.integers(0, users, rows), rng.integers(0, items, rows)
    utility = 1.2 * (p[u] * q[i]).sum(1) + 0.7 * popularity[i]
    click = rng.random(rows) < 1 / (1 + np.exp(-utility))
    if shuffled:
        click = rng.permutation(click)
    return pl.DataFrame({"user": u, "group": u % 7, "item": i, "kind": i % 5, "ts": np.arange(rows) + 1_650_000_000,
                         "click": click.astype(np.int8), "utility": utility})  # fmt: skip


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """A config over `folder`/log.parquet; nested keys as 'training.epochs' in changes."""
    raw: dict[str, Any] = {
        "data": {
            "log": str(folder / "log.parquet"), "user_id": "user", "item_id": "item", "time": "ts",
            "labels": {"click": {"column": "click"}}, "width": 8, "cache": str(folder / "cache"),
            "features": [{"name": "user", "side": "user"}, {"name": "group", "side": "user"},
                         {"name": "item", "side": "item"}, {"name": "kind", "side": "item"}],
        },
        "model": {"name": "mf", "width": 8},
        "training": {"epochs": 3, "batch_size": 512, "threads": 1, "optimizer": {"lr": 0.01}},
        "output": str(folder / "run"),
    }  # fmt: skip
    for path, value in changes.items():
        *parents, key = path.split(".")
        node = raw
        for parent in parents:
            node = node.setdefault(parent, {})
        node[key] = value
    return raw


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    planted_log().write_parquet(folder / "log.parquet")
    return folder
