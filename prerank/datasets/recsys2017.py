"""RecSys Challenge 2017: job postings of XING shown to users, and what they did; official tab-separated files (CS3's third data set).

    interactions.csv   user_id, item_id, created_at (seconds) and interaction_type:
                       0 impression, 1 click, 2 bookmark, 3 reply, 4 delete, 5 recruiter interest
    users.csv          id, job roles, career, discipline, industry, country, region, experience, education, wtcj, premium
    items.csv          id, title and tag terms, career, discipline, industry, country, region, place, employment, created_at

The exports write a table's name before each column's (`recsyschallenge_v2017_..._export.user_id`); it is taken off. Lists are separated
by commas, an empty cell or `null` is a missing value.

Preprocessing (ours: CS3 does not describe its own): one row a user and item with a 0/1 column for each kind of interaction and the time
of the first (see `pairs.py`); pairs with nothing but a recruiter's interest are dropped and counted, as the user never saw the posting.
Label `positive`: clicked, bookmarked or replied, the challenge's own notion of a relevant item; impressions and deletions are negatives.

Split (ours): by time of the pair's first event, the last 20 % test, 10 % before it validation. A pair's label covers the whole period.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from prerank.datasets.pairs import pairs
from prerank.datasets.recipe import Options, Recipe, Tables
from prerank.datasets.stream import stream_csv

LOG, USERS, ITEMS = "interactions.csv", "users.csv", "items.csv"
KINDS = {"impression": 0, "click": 1, "bookmark": 2, "reply": 3, "delete": 4, "recruiter": 5}
_NULLS = ("", "NULL", "null")
_LOG = {"user_id": pl.Int32, "item_id": pl.Int32, "interaction_type": pl.Int8, "created_at": pl.Int64}
_CODES = ("career_level", "discipline_id", "industry_id", "region")
_USER_CODES = (
    *_CODES, "experience_n_entries_class", "experience_years_experience", "experience_years_in_current", "edu_degree", "wtcj", "premium",
)  # fmt: skip
_USER_LISTS = ("jobroles", "edu_fieldofstudies")
_ITEM_CODES = (*_CODES, "is_payed", "employment")
_ITEM_LISTS = ("title", "tags")
_ITEM_NUMBERS = {"latitude": pl.Float64, "longitude": pl.Float64, "created_at": pl.Int64}


class _Interactions:
    """One walk over the log; what was dropped is known at its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unseen = 0

    def log(self) -> Iterator[pl.DataFrame]:
        allowed = {"interaction_type": tuple(KINDS.values())}
        events = stream_csv(self.path, _LOG, separator="\t", nulls=_NULLS, required=tuple(_LOG), allowed=allowed)
        for every in pairs(events, "user_id", "item_id", "interaction_type", "created_at", KINDS):
            seen = every.filter(pl.max_horizontal(n for n in KINDS if n != "recruiter") == 1)
            self.unseen += every.height - seen.height
            yield seen


def _tables(raw: Path, _: Options) -> Tables:
    interactions = _Interactions(raw / LOG)
    yield "log", interactions.log()
    texts = dict.fromkeys(("country", *_USER_LISTS), pl.String)
    yield "users", _features(raw / USERS, {**dict.fromkeys(_USER_CODES, pl.Int32), **texts}, "user_id")
    texts = dict.fromkeys(("country", *_ITEM_LISTS), pl.String)
    yield "items", _features(raw / ITEMS, {**dict.fromkeys(_ITEM_CODES, pl.Int32), **texts, **_ITEM_NUMBERS}, "item_id")
    yield "notes", pl.DataFrame({"pairs_of_recruiters_alone": [interactions.unseen]})


def _features(path: Path, columns: dict[str, Any], key: str) -> pl.DataFrame:
    """A table of users or items; its `id` under the log's name for it."""
    parts = stream_csv(path, {"id": pl.Int32, **columns}, separator="\t", nulls=_NULLS, required=("id",))
    return pl.concat(parts).rename({"id": key})


def _settings(_: Options) -> dict[str, Any]:
    many = {"kind": "multi", "separator": ",", "max_length": 16}
    user: list[dict[str, Any]] = [{"name": n, "side": "user"} for n in ("user_id", "country", *_USER_CODES)]
    user += [{"name": n, "side": "user", **many} for n in _USER_LISTS]
    item: list[dict[str, Any]] = [{"name": "item_id", "side": "item"}]
    item += [{"name": f"item_{n}", "column": n, "side": "item"} for n in ("country", *_ITEM_CODES)]
    item += [{"name": f"item_{n}", "column": n, "side": "item", **many} for n in _ITEM_LISTS]
    item += [{"name": f"item_{n}", "column": n, "side": "item", "kind": "numeric", "bins": 20} for n in _ITEM_NUMBERS]
    return {
        "user_id": "user_id",
        "item_id": "item_id",
        "time": "created_at",
        "labels": {"positive": {"rule": "click + bookmark + reply > 0"}},
        "split": {"kind": "time", "validation": 0.1, "test": 0.2},
        "features": user + item,
    }


RECSYS2017 = Recipe(
    name="recsys2017",
    title="RecSys Challenge 2017 (XING)",
    licence="for the challenge's participants, see its rules",
    citation="Abel et al.: RecSys Challenge 2017: Offline and Online Evaluation, RecSys 2017",
    rows="not counted here",
    obtain="the training files of the RecSys Challenge 2017 (XING gave them to registered participants)",
    folders=("recsys2017",),
    files=(LOG, USERS, ITEMS),
    tables=_tables,
    settings=_settings,
    refused=dict.fromkeys(KINDS, "what happened between user and item decides it"),
)
