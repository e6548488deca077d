"""KuaiRand-Pure: impressions of a short-video app with click and long view, official CSV files.

Only the standard-policy logs are read. Exact duplicate rows are dropped before any column is (the official file holds 5,460 in the
dates 25 April - 8 May alone). What the impression's outcome decides, or what counts over the whole period, never becomes a feature.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field, field_validator

from prerank.datasets.files import read_csv
from prerank.datasets.recipe import Options, Recipe, Tables

LOGS = ("log_standard_4_08_to_4_21_pure.csv", "log_standard_4_22_to_5_08_pure.csv")  # in order of time; only the second must be there
USERS = "user_features_pure.csv"
VIDEOS = "video_features_basic_pure.csv"
STATISTICS = "video_features_statistic_pure.csv"

# Known only after the impression: none of them may be a feature.
OUTCOME_COLUMNS = (
    "is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate", "long_view",
    "play_time_ms", "profile_stay_time", "comment_stay_time", "is_profile_enter",
)  # fmt: skip
_LABELS = ("long_view", "is_click", "is_like")
_LOG = {"user_id": pl.Int32, "video_id": pl.Int32, "time_ms": pl.Int64, "tab": pl.Int8, "hourmin": pl.Int16, "date": pl.Int32}
_USER_TEXT = ("user_active_degree", "follow_user_num_range", "fans_user_num_range", "friend_user_num_range", "register_days_range")
_USER_COUNTS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
_USER_CODES = ("is_lowactive_period", "is_live_streamer", "is_video_author", *(f"onehot_feat{i}" for i in range(18)))
_VIDEO_TEXT = ("video_type", "upload_dt", "upload_type", "tag")
_VIDEO_NUMBERS = ("video_duration", "server_width", "server_height")
_VIDEO_CODES = ("author_id", "music_type")


class KuaiRandOptions(Options):
    """Whether the forbidden file is asked for."""

    statistics: bool = Field(False, description="always refused, with the reason")

    @field_validator("statistics")
    @classmethod
    def _leaks(cls, value: bool) -> bool:
        if value:
            raise ValueError(f"{STATISTICS} counts clicks and likes over the whole period, the test days included: a leak, never a feature")
        return value


def _tables(raw: Path, _: KuaiRandOptions) -> Tables:
    columns = {**_LOG, **dict.fromkeys(_LABELS, pl.Int8)}
    logs = [read_csv(raw / name, columns, required=tuple(columns)) for name in LOGS if (raw / name).is_file()]
    every = pl.concat(logs, how="diagonal")
    unique = every.unique(maintain_order=True)
    hour = (pl.col("hourmin") // 100).cast(pl.Int8).alias("hour")
    yield "log", unique.select("user_id", "video_id", "time_ms", "tab", hour, "date", *_LABELS)
    yield "users", _features(raw / USERS, "user_id", _USER_TEXT, (*_USER_COUNTS, *_USER_CODES))
    yield "items", _features(raw / VIDEOS, "video_id", _VIDEO_TEXT, (*_VIDEO_CODES, *_VIDEO_NUMBERS))
    yield "notes", pl.DataFrame({"duplicates_dropped": [every.height - unique.height]})


def _features(path: Path, key: str, texts: tuple[str, ...], numbers: tuple[str, ...]) -> pl.DataFrame:
    columns = {key: pl.Int32, **dict.fromkeys(texts, pl.String), **dict.fromkeys(numbers, pl.Int64)}
    return read_csv(path, columns, required=(key,)).select(*columns)


def _settings(_: KuaiRandOptions) -> dict[str, Any]:
    def those(side: str, names: tuple[str, ...], **more: Any) -> list[dict[str, Any]]:
        return [{"name": name, "side": side, **more} for name in names]

    user = those("user", ("user_id", *_USER_TEXT, *_USER_CODES)) + those("user", _USER_COUNTS, kind="numeric", bins=20)
    item = those("item", ("video_id", *_VIDEO_CODES, "video_type", "upload_dt", "upload_type"))
    item += those("item", ("tag",), kind="multi", separator=",", max_length=8) + those("item", _VIDEO_NUMBERS, kind="numeric", bins=20)
    return {
        "user_id": "user_id",
        "item_id": "video_id",
        "time": "time_ms",
        "labels": {name: {"column": name} for name in ("long_view", "is_click")},
        "split": {"kind": "time", "validation": "2022-05-05 00:00:00", "test": "2022-05-06 00:00:00", "timezone": "Asia/Shanghai"},
        "features": user + item + those("context", ("tab", "hour")),
    }


KUAIRAND = Recipe(
    name="kuairand",
    title="KuaiRand-Pure",
    licence="CC BY-SA 4.0",
    citation="Gao et al.: KuaiRand, CIKM 2022, doi 10.1145/3511808.3557624",
    rows="1,436,609 impressions",
    url="https://zenodo.org/records/10439422/files/KuaiRand-Pure.tar.gz",
    folders=("kuairand-pure", "KuaiRand-Pure/data", "KuaiRand-Pure", "data"),
    files=(LOGS[1], USERS, VIDEOS),
    optional=(LOGS[0],),
    options=KuaiRandOptions,
    tables=_tables,
    settings=_settings,
    refused=dict.fromkeys(OUTCOME_COLUMNS, "the impression's outcome decides it, so it is not known when items are scored"),
)
