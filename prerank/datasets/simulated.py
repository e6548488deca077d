"""A simulated cascade whose truth is known: train on `log.parquet`, then ask `oracle` how good anybody could have been.

Tastes, popularity, drift and what the features show are in `world.py`, the stages in `cascade.py`. Beside the tables of every recipe its
folder holds what no feature may read:

    truth.parquet        one row a log row: utility, conversion_utility (true logits)
    truth_users.parquet  user_id, bias, vector        truth_items.parquet  item_id, bias, conversion_bias, vector
    candidates.parquet   with option `candidates`: request_id, item_id, stage of those that were not shown
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from prerank.batch import Stage
from prerank.datasets import cascade, world
from prerank.datasets.recipe import Options, Recipe, Tables, notes

Array = np.ndarray


class SimulatedOptions(Options):
    """How large a world, and how it moves."""

    users: int = Field(2_000, ge=2, description="users")
    items: int = Field(1_000, ge=world.ITEM_GROUPS, description="items")
    impressions: int = Field(500_000, ge=100, description="log rows, about")
    list_size: int = Field(10, ge=1, le=200, description="items shown a request")
    days: int = Field(14, ge=2, description="length of the period")
    drift: float = Field(0.1, ge=0, le=1, description="how far tastes turn over the period, in quarter turns")
    seed: int = Field(0, ge=0, description="same seed and options, same world")
    candidates: bool = Field(False, description="also write candidates.parquet: what earlier stages held")

    @model_validator(mode="after")
    def _no_folder(self) -> SimulatedOptions:
        if self.source is not None:
            raise ValueError("option from: this data set is generated, it is read from nowhere")
        return self


def _tables(_: Path, options: SimulatedOptions) -> Tables:
    rng = np.random.default_rng(options.seed)
    planted = world.plant(options.users, options.items, rng)
    users, items = world.user_features(planted, rng), world.item_features(planted, rng)
    asked = cascade.requests(planted, -(-options.impressions // options.list_size), options.days, rng)
    blocks = list(_blocks(planted, asked, options, rng))
    shown = {k: np.concatenate([b[k][b["stage"] == Stage.IMPRESSION] for b in blocks])[: options.impressions] for k in blocks[0]}
    constants = {
        "click_intercept": cascade.intercept(shown["utility"], cascade.CLICK_RATE),
        "conversion_intercept": cascade.intercept(shown["conversion"], cascade.CONVERSION_RATE),
        "scene_bias": planted.scene_bias.tolist(),
        "hour_bias": planted.hour_bias.tolist(),
        "start_ms": cascade.START_MS,
        "period_ms": options.days * cascade.DAY_MS,
    }
    shown["utility"] = (shown["utility"] + constants["click_intercept"]).astype(np.float32)
    shown["conversion"] = (shown["conversion"] + constants["conversion_intercept"]).astype(np.float32)
    yield "log", _log(planted, asked, shown, rng)
    yield "users", pl.DataFrame(users)
    yield "items", pl.DataFrame(items)
    yield "truth", pl.DataFrame({"utility": shown["utility"], "conversion_utility": shown["conversion"]})
    yield "truth_users", pl.DataFrame({"user_id": users["user_id"], "bias": planted.user_bias, "vector": planted.user_vector})
    truth = {"bias": planted.item_bias, "conversion_bias": planted.conversion_bias, "vector": planted.item_vector}
    yield "truth_items", pl.DataFrame({"item_id": items["item_id"], **truth})
    if options.candidates:
        yield "candidates", pl.concat(_unseen(asked, b) for b in blocks)
    yield "notes", pl.DataFrame({k: [v] for k, v in constants.items()})


def _blocks(
    planted: world.World, asked: cascade.Requests, options: SimulatedOptions, rng: np.random.Generator
) -> Iterator[dict[str, Array]]:
    """Blocks of the cascade; without option `candidates` only what was shown is kept."""
    for block in cascade.run(planted, asked, options.list_size, options.days, options.drift, rng):
        keep = slice(None) if options.candidates else block["stage"] == Stage.IMPRESSION
        yield {k: v[keep] for k, v in block.items()}


def _log(planted: world.World, asked: cascade.Requests, shown: dict[str, Array], rng: np.random.Generator) -> pl.DataFrame:
    """Impressions with their clicks, and conversions after clicks, each with the wait from the impression until it is known."""
    request, item = shown["request"], shown["item"]
    click = rng.random(len(item)) < cascade.sigmoid(shown["utility"])
    conversion = click & (rng.random(len(item)) < cascade.sigmoid(shown["conversion"]))
    click_wait = rng.exponential(cascade.CLICK_DELAY_MS, len(item)).astype(np.int64)
    conversion_wait = click_wait + rng.exponential(cascade.CONVERSION_DELAY_MS, len(item)).astype(np.int64)
    first = np.searchsorted(request, request)  # row where this row's request begins
    frame = pl.DataFrame(
        {
            "request_id": request.astype(np.int64),
            "user_id": (asked.user[request] + 1).astype(np.int32),
            "item_id": (item + 1).astype(np.int32),
            "time_ms": asked.time_ms[request],
            "scene": asked.scene[request].astype(np.int8),
            "hour": asked.hour[request],
            "position": (np.arange(len(item)) - first).astype(np.int16),
            "bid": planted.bid[item],
            "click": click.astype(np.int8),
            "conversion": conversion.astype(np.int8),
            "click_delay_ms": click_wait,
            "conversion_delay_ms": conversion_wait,
        }
    )
    return frame.with_columns(pl.when(pl.col(n) == 1).then(pl.col(f"{n}_delay_ms")).alias(f"{n}_delay_ms") for n in ("click", "conversion"))


def _unseen(asked: cascade.Requests, block: dict[str, Array]) -> pl.DataFrame:
    keep = block["stage"] > Stage.IMPRESSION
    request, item, stage = (block[k][keep] for k in ("request", "item", "stage"))
    user = (asked.user[request] + 1).astype(np.int32)
    ids = {"request_id": request.astype(np.int64), "user_id": user, "item_id": (item + 1).astype(np.int32)}
    return pl.DataFrame({**ids, "time_ms": asked.time_ms[request], "stage": stage})


def oracle(folder: str | Path, at: float | None = None) -> dict[str, Array]:
    """True logits of every log row: {"click": [R], "conversion": [R]} float32; the conversion's is given the click.

    at    None: as they were at each row's time. A fraction of the period: with all tastes held as they stood then, which is the best
          that a static two-tower can know when it learns from rows around that time.
    """
    folder = Path(folder)
    if at is None:
        truth = pl.read_parquet(folder / "truth.parquet")
        return {"click": truth["utility"].to_numpy(), "conversion": truth["conversion_utility"].to_numpy()}
    said = notes(folder)
    log = pl.read_parquet(folder / "log.parquet", columns=["user_id", "item_id", "scene", "hour"])
    user, item = log["user_id"].to_numpy() - 1, log["item_id"].to_numpy() - 1
    users, items = pl.read_parquet(folder / "truth_users.parquet"), pl.read_parquet(folder / "truth_items.parquet")
    then = world.turned(users["vector"].to_numpy(), float(world.angle_at(at, said["options"]["drift"])))
    taste = world.SCALE * np.einsum("rk,rk->r", then[user], items["vector"].to_numpy()[item])
    context = np.asarray(said["scene_bias"])[log["scene"].to_numpy()] + np.asarray(said["hour_bias"])[log["hour"].to_numpy()]
    click = taste + users["bias"].to_numpy()[user] + items["bias"].to_numpy()[item] + context + said["click_intercept"]
    conversion = taste / 2 + items["conversion_bias"].to_numpy()[item] + said["conversion_intercept"]
    return {"click": click.astype(np.float32), "conversion": conversion.astype(np.float32)}


def _settings(_: SimulatedOptions) -> dict[str, Any]:
    user = [{"name": n, "side": "user"} for n in ("user_id", "segment", "age", "device")]
    item = [{"name": n, "side": "item"} for n in ("item_id", "category", "creator")]
    return {
        "user_id": "user_id",
        "item_id": "item_id",
        "time": "time_ms",
        "request": "request_id",
        "labels": {"click": {"column": "click"}, "conversion": {"column": "conversion"}},
        "split": {"kind": "time", "validation": 0.1, "test": 0.2},
        "features": [
            *user,
            {"name": "interests", "side": "user", "kind": "multi", "separator": "|", "max_length": world.NAMED},
            {"name": "activity", "side": "user", "kind": "numeric", "bins": 10},
            *item,
            {"name": "tags", "side": "item", "kind": "multi", "separator": "|", "max_length": world.NAMED},
            {"name": "quality", "side": "item", "kind": "numeric", "bins": 10},
            {"name": "scene", "side": "context"},
            {"name": "hour", "side": "context"},
        ],
    }


_OUTCOMES = dict.fromkeys(("click", "conversion", "click_delay_ms", "conversion_delay_ms"), "the impression's outcome decides it")

SIMULATED = Recipe(
    name="simulated",
    title="a planted cascade",
    licence="none needed: generated here",
    citation="prerank/datasets/world.py",
    rows="500,000 impressions (option)",
    folders=(),
    files=(),
    options=SimulatedOptions,
    tables=_tables,
    settings=_settings,
    refused={**_OUTCOMES, "position": "the ranking stage decides it after pre-ranking"},
    version=2,
)
