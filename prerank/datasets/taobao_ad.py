"""TaobaoAd: eight days of display-ad impressions on Taobao with their clicks, official CSV files (IntTower's 'Alibaba').

    raw_sample.csv     user,time_stamp,adgroup_id,pid,nonclk,clk
    ad_feature.csv     adgroup_id,cate_id,campaign_id,customer,brand,price
    user_profile.csv   userid, eight groups and levels (the last name is written with a blank after it)

Preprocessing: none but types; an empty cell or `NULL` (brands, pvalue_level, new_user_class_level) is a missing value. Rows whose user or
ad has no profile are kept with its features missing (the released IntTower code drops them by an inner join).

Fields: the nine of user_profile and the six of ad_feature, price in 20 equal-frequency bins (our choice). `pid`, the place on the page,
is known when a request comes and belongs to no ad: option `pid` adds it as context (the released IntTower code puts it into the item
tower, whose vectors then cannot be computed beforehand).

Split: by time in UTC+8, as its documentation says: the first seven days (6-12 May 2017) train, the last day (13 May) test. Validation is
the seventh day, taken from train (our choice: the documentation has none). IntTower's table used a random 80/20 split instead: `split:
{kind: random, validation: 0.1, test: 0.2}`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field

from prerank.datasets.recipe import Options, Recipe, Tables
from prerank.datasets.stream import stream_csv

LOG, ADS, USERS = "raw_sample.csv", "ad_feature.csv", "user_profile.csv"
NULLS = ("", "NULL")

_LOG = {"user": pl.Int32, "time_stamp": pl.Int64, "adgroup_id": pl.Int32, "pid": pl.String, "nonclk": pl.Int8, "clk": pl.Int8}
_USER = (
    "cms_segid", "cms_group_id", "final_gender_code", "age_level", "pvalue_level", "shopping_level", "occupation", "new_user_class_level",
)  # fmt: skip
_AD = ("cate_id", "campaign_id", "customer", "brand")


class TaobaoAdOptions(Options):
    """Which fields."""

    pid: bool = Field(False, description="the place on the page as a context field, beside the 9 + 6 of the papers")


def _tables(raw: Path, _: TaobaoAdOptions) -> Tables:
    yield "log", _impressions(raw / LOG)
    columns: dict[str, Any] = {"userid": pl.Int32, **dict.fromkeys(_USER, pl.Int16)}
    users = pl.concat(stream_csv(raw / USERS, columns, nulls=NULLS, required=("userid",)))
    yield "users", users.rename({"userid": "user"})  # the log's name for it
    columns = {"adgroup_id": pl.Int32, **dict.fromkeys(_AD, pl.Int32), "price": pl.Float64}
    yield "items", pl.concat(stream_csv(raw / ADS, columns, nulls=NULLS, required=("adgroup_id",)))


def _impressions(path: Path) -> Iterator[pl.DataFrame]:
    for rows in stream_csv(path, _LOG, nulls=NULLS, required=tuple(_LOG), allowed={"clk": (0, 1), "nonclk": (0, 1)}):
        yield rows.drop("nonclk")


def _settings(options: TaobaoAdOptions) -> dict[str, Any]:
    user = [{"name": n, "side": "user"} for n in ("user", *_USER)]
    item: list[dict[str, Any]] = [{"name": n, "side": "item"} for n in ("adgroup_id", *_AD)]
    item.append({"name": "price", "side": "item", "kind": "numeric", "bins": 20})
    return {
        "user_id": "user",
        "item_id": "adgroup_id",
        "time": "time_stamp",
        "labels": {"click": {"column": "clk"}},
        "split": {"kind": "time", "validation": "2017-05-12 00:00:00", "test": "2017-05-13 00:00:00", "timezone": "Asia/Shanghai"},
        "features": [*user, *item, *([{"name": "pid", "side": "context"}] if options.pid else [])],
    }


TAOBAO_AD = Recipe(
    name="taobao_ad",
    title="TaobaoAd",
    licence="research use, see its page",
    citation="Tianchi: Ad Display/Click Data on Taobao.com, 2018",
    rows="26,557,961 impressions",
    obtain="'Ad Display/Click Data on Taobao.com' of Alibaba's Tianchi (a login is needed)",
    folders=("taobao-ad",),
    files=(LOG, ADS, USERS),
    options=TaobaoAdOptions,
    tables=_tables,
    settings=_settings,
    refused={"clk": "the impression's outcome decides it, so it is not known when items are scored"},
)
