"""Requests of the simulated cascade, whose truth is known, with scores of as good a model as is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prerank.batch import Stage
from prerank.config import parse
from prerank.datasets import cascade, world
from prerank.metrics import sigmoid
from prerank.run import train

USERS, ITEMS, SHOWN = 120, 200, 5


def candidates(requests: int = 150, seed: int = 0) -> pl.DataFrame:
    """Every candidate of every request: ids, stage, what the ranking model and two pre-rankers say (more or less noisy), bid, worth."""
    rng = np.random.default_rng(seed)
    planted = world.plant(USERS, ITEMS, rng)
    asked = cascade.requests(planted, requests, 14, rng)
    blocks = list(cascade.run(planted, asked, SHOWN, 14, 0.0, rng))
    request, item, stage, utility = (np.concatenate([b[k] for b in blocks]) for k in ("request", "item", "stage", "utility"))
    logit = utility + cascade.intercept(utility, 0.1)

    def noisy(scale: float) -> np.ndarray:
        return logit + scale * rng.standard_normal(len(logit))

    events = np.bincount(item, minlength=ITEMS)
    frame = pl.DataFrame({
        "request_id": request, "user_id": asked.user[request], "item_id": item, "time_ms": asked.time_ms[request],
        "stage": np.array([s.name.lower() for s in Stage])[stage],
        "ranking": sigmoid(noisy(0.3)), "good": noisy(0.7), "bad": noisy(2.0),
        "bid": planted.bid[item], "worth": sigmoid(logit), "user_events": (asked.user[request] % 9), "item_events": events[item] - 1,
    })  # fmt: skip
    click = (stage == Stage.IMPRESSION) & (rng.random(len(logit)) < sigmoid(logit))
    return frame.with_columns(click=pl.Series(click.astype(np.int8)), teacher=pl.col("ranking").cast(pl.Float32))


def config(folder: Path, name: str, **changes: Any) -> dict[str, Any]:
    """A run over folder/log.parquet; nested keys as 'data.bid'."""
    raw: dict[str, Any] = {
        "name": name,
        "data": {
            "log": str(folder / "log.parquet"), "time": "time_ms", "request": "request_id", "stage": {"column": "stage"},
            "labels": {"click": {"column": "click"}}, "teacher": {"column": "teacher"}, "width": 8, "cache": str(folder / "cache"),
            "split": {"kind": "time", "validation": 0.15, "test": 0.25},
            "features": [{"name": "user_id", "side": "user"}, {"name": "item_id", "side": "item"}],
        },
        "model": {"name": "mf", "width": 8},
        "training": {"epochs": 2, "batch_size": 256, "threads": 1, "optimizer": {"lr": 0.02}},
        "output": str(folder / name),
    }  # fmt: skip
    for path, value in changes.items():
        *parents, key = path.split(".")
        node = raw
        for parent in parents:
            node = node.setdefault(parent, {})
        node[key] = value
    return raw


def trained(folder: Path, name: str, **changes: Any) -> Path:
    """The folder of a trained run."""
    train(parse(config(folder, name, **changes)), overwrite=True)
    return folder / name
