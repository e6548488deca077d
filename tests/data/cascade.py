"""A random cascade's log on disk, and what its lists must be, worked out row by row in plain Python."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prerank.config import Data
from prerank.data import Dataset, prepare

STAGES = ("impression", "ranking", "pre_ranking", "recall", "random")


def cascade_log(seed: int, requests: int = 30, users: int = 8, items: int = 25, longest: int = 14) -> pl.DataFrame:
    """Requests of different length; items repeat inside some, some have no impression, some one row; scores are missing in places."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for request in range(requests):
        user = int(rng.integers(users))
        for _ in range(int(rng.integers(1, longest))):
            stage = STAGES[int(rng.choice(4, p=[0.4, 0.2, 0.2, 0.2]))]
            shown = stage == "impression"
            rows.append({
                "request": request, "user": user, "item": int(rng.integers(items)), "stage": stage, "time": 1_700_000_000 + request,
                "click": int(rng.random() < 0.4) if shown else None, "score": float(rng.random()) if rng.random() < 0.7 else None,
                "bid": float(rng.integers(5)), "hour": int(rng.integers(24)), "price": float(rng.integers(3)),
            })  # fmt: skip
    rows[0] |= {"stage": "impression", "click": 1}
    rows[1] |= {"stage": "impression", "click": 0, "request": 0, "user": rows[0]["user"]}
    order = rng.permutation(len(rows))
    return pl.DataFrame(rows, infer_schema_length=None)[order.tolist()]


def cascade_data(log: pl.DataFrame, folder: Path, **more: Any) -> Data:
    path = folder / "cascade.parquet"
    log.write_parquet(path)
    given: dict[str, Any] = {
        "log": str(path), "user_id": "user", "item_id": "item", "time": "time", "request": "request", "stage": {"column": "stage"},
        "teacher": {"column": "score"}, "bid": "bid", "labels": {"click": {"column": "click"}}, "cache": str(folder / "cache"),
        "split": {"kind": "request", "validation": 0.2, "test": 0.2},
        "features": [{"name": "user", "side": "user"}, {"name": "item", "side": "item"}],
    }  # fmt: skip
    return Data.model_validate(given | more)


def cascade_dataset(log: pl.DataFrame, folder: Path, **more: Any) -> Dataset:
    return prepare(cascade_data(log, folder, **more))


def expected_lists(dataset: Dataset, log: pl.DataFrame, split: str, by: str, filtered: bool) -> dict[Any, list[int]]:
    """{request or user: its log rows, in order}."""
    part = {"train": 0, "validation": 1, "test": 2}[split]
    rows = log.with_row_index("row").rows(named=True)
    liked = {(r["user"], r["item"]) for r in rows
             if dataset.split[r["row"]] == 0 and r["stage"] == "impression" and r["click"]}  # fmt: skip
    best: dict[tuple[Any, int], tuple[Any, ...]] = {}
    for r in rows:
        if dataset.split[r["row"]] != part:
            continue
        place = (STAGES.index(r["stage"]), -(r["click"] or 0), r["row"])
        key = (r[by], r["item"])
        if key not in best or place < best[key]:
            best[key] = place
    lists: dict[Any, list[tuple[int, int]]] = defaultdict(list)
    for (name, item), (stage, _, row) in best.items():
        if filtered and stage > 0 and (rows[row]["user"], item) in liked:
            continue
        lists[name].append((stage, row))
    return {name: [row for _, row in sorted(found)] for name, found in lists.items()}
