"""Taobao UserBehavior: views, carts, favourites and purchases of nine days, one official CSV file without header (RankTower's 'Taobao').

    UserBehavior.csv   user,item,category,behavior,timestamp       behavior is pv, cart, fav or buy; seconds

Preprocessing, after RankTower (`pv` plays the impression); the paper leaves open what is marked (ours):

 1. events outside 25 November - 3 December 2017 (UTC+8), the period that its page names, are dropped and counted (ours);
 2. one row a user and item, with `cart`, `fav` and `buy` as 0/1 columns and the time of the first event (ours, see `pairs.py`);
 3. pairs that were never viewed are dropped and counted: without a pv there is no impression (ours);
 4. users with at least 100 impressions and at least 20 positives stay (options); a positive is a pair with any of the three (ours).

Label `interact`: any of the three. RankTower's hard label is their sum: `labels: {relevance: {weighted: {cart: 1, fav: 1, buy: 1}}}`.
Split: random 70/10/20 over pairs. Fields: the user's id; the item's id and category. A pair's label covers the whole period, so a split
by time would let a train row know of a later purchase.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field

from prerank.datasets.pairs import pairs
from prerank.datasets.recipe import Options, Recipe, Tables
from prerank.datasets.stream import FirstSeen, stream_csv

FILE = "UserBehavior.csv"
FEEDBACK = ("cart", "fav", "buy")
PERIOD = (1_511_539_200, 1_512_316_800)  # 25 November 2017 00:00 and 4 December 00:00 in UTC+8
_COLUMNS = {"user_id": pl.Int32, "item_id": pl.Int32, "category_id": pl.Int32, "behavior": pl.String, "time": pl.Int64}


class TaobaoBehaviorOptions(Options):
    """Which users stay."""

    min_impressions: int = Field(100, ge=0, description="items that a user must have viewed")
    min_positives: int = Field(20, ge=0, description="of these, items with a cart, favourite or purchase")


class _Behavior:
    """One walk over the file; all items of the period and what was dropped are known at its end."""

    def __init__(self, path: Path, options: TaobaoBehaviorOptions) -> None:
        self.path, self.options = path, options
        self.items = FirstSeen("item_id")
        self.outside = self.unseen = self.users_dropped = 0

    def events(self) -> Iterator[pl.DataFrame]:
        allowed = {"behavior": ("pv", *FEEDBACK)}
        for rows in stream_csv(self.path, _COLUMNS, names=tuple(_COLUMNS), required=tuple(_COLUMNS), allowed=allowed):
            inside = rows.filter(pl.col("time").is_between(*PERIOD, closed="left"))
            self.outside += rows.height - inside.height
            self.items.update(inside.select("item_id", "category_id"))
            yield inside.drop("category_id")

    def log(self) -> Iterator[pl.DataFrame]:
        kinds = {name: name for name in ("pv", *FEEDBACK)}
        positive = pl.max_horizontal(FEEDBACK)
        enough = (pl.len() >= self.options.min_impressions) & (positive.sum() >= self.options.min_positives)
        for every in pairs(self.events(), "user_id", "item_id", "behavior", "time", kinds):
            seen = every.filter(pl.col("pv") == 1).drop("pv")
            kept = seen.filter(enough.over("user_id"))
            self.unseen += every.height - seen.height
            self.users_dropped += every["user_id"].n_unique() - kept["user_id"].n_unique()
            yield kept

    def notes(self) -> pl.DataFrame:
        counts = {"events_outside_the_period": self.outside, "pairs_never_viewed": self.unseen, "users_dropped": self.users_dropped}
        return pl.DataFrame({name: [count] for name, count in counts.items()})


def _tables(raw: Path, options: TaobaoBehaviorOptions) -> Tables:
    behavior = _Behavior(raw / FILE, options)
    yield "log", behavior.log()
    yield "items", behavior.items.get()
    yield "notes", behavior.notes()


def _settings(_: TaobaoBehaviorOptions) -> dict[str, Any]:
    return {
        "user_id": "user_id",
        "item_id": "item_id",
        "time": "time",
        "labels": {"interact": {"rule": "cart + fav + buy > 0"}},
        "split": {"kind": "random", "validation": 0.1, "test": 0.2},
        "features": [
            {"name": "user_id", "side": "user"},
            {"name": "item_id", "side": "item"},
            {"name": "category_id", "side": "item"},
        ],
    }


TAOBAO_BEHAVIOR = Recipe(
    name="taobao_behavior",
    title="Taobao UserBehavior",
    licence="research use, see its page",
    citation="Zhu et al.: Learning Tree-based Deep Model for Recommender Systems, KDD 2018",
    rows="about 100 million events",
    obtain="'User Behavior Data from Taobao for Recommendation' of Alibaba's Tianchi (a login is needed)",
    folders=("taobao-behavior",),
    files=(FILE,),
    options=TaobaoBehaviorOptions,
    tables=_tables,
    settings=_settings,
    refused=dict.fromkeys(FEEDBACK, "the label is made from it"),
)
