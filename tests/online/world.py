"""A small world as a prepared log and as the stream of rows that label waiting would make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from prerank.config import Config, parse
from prerank.stream import Impression, Row, Source, open_log

N, USERS, ITEMS, BEGIN = 3000, 40, 30, 1_650_000_000_000


def frame(seed: int = 0, shuffled: bool = False) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    users, items, tab = rng.integers(0, USERS, N), rng.integers(0, ITEMS, N), rng.integers(0, 3, N)
    taste, worth = rng.normal(size=USERS), rng.normal(size=ITEMS)
    click = rng.random(N) < 1 / (1 + np.exp(-2 * (taste[users] + worth[items])))
    labels = rng.permutation(click) if shuffled else click
    return pl.DataFrame({"user": users, "item": items, "tab": tab, "ts": BEGIN + 1000 * np.arange(N), "click": labels.astype(np.int64)})


def config(folder: Path, **changes: Any) -> Config:
    groups = [{"match": "*ids*", "lr": 0.1, "rowwise": True}]
    raw: dict[str, Any] = {
        "name": "stream",
        "data": {"log": str(folder / "log.parquet"), "user_id": "user", "item_id": "item", "time": "ts", "width": 4,
                 "labels": {"click": {"column": "click"}},
                 "features": [{"name": "user", "side": "user"}, {"name": "tab", "side": "context"}, {"name": "item", "side": "item"}],
                 "split": {"kind": "time", "validation": 0.1, "test": 0.3}, "cache": str(folder / "cache")},
        "model": {"name": "dssm", "hidden": [8], "norm": False, "id_head": 2, "similarity": "dot"},
        "training": {"batch_size": 64, "optimizer": {"lr": 0.003, "groups": groups}, "average": 0.9, "threads": 1},
        "online": {"rows": f"sqlite:///{folder / 'rows.db'}", "checkpoint": "1h"},
        "output": str(folder / "run"),
    }  # fmt: skip
    for key, value in changes.items():
        section, _, name = key.partition(".")
        if name:
            raw[section] = {**raw[section], name: value}
        else:
            raw[section] = value
    return parse(raw)


def messages(log: pl.DataFrame, start: int = 0) -> list[bytes]:
    """A row a line of the log, in its order."""
    found = []
    for n, (user, item, tab, ts, click) in enumerate(log.rows(), start):
        impression = Impression(request=n, user=user, item=item, ts=ts, features={"tab": tab})
        row = Row(impression=impression, labels={"click": float(click)}, delay=0, appended=ts, source=Source(n, 0))
        found.append(msgspec.json.encode(row))
    return found


def fill(folder: Path, log: pl.DataFrame, start: int = 0) -> None:
    rows = open_log(f"sqlite:///{folder / 'rows.db'}")
    rows.append(messages(log, start))
    rows.close()
