"""RecFlow: every candidate of 9.3 million requests of a short-video app, and at which stage of its cascade each was left behind.

One Feather file a day in `all_stage/`. Flags say how a video fared; the stage it reached last, in the house's words:

    realshow                                      shown                                    impression
    rerank_pos, rerank_neg, rank_pos, rank_neg    in or out of the first 10 of rerank,      ranking
                                                  of rank
    coarse_neg                                    out of the first 500 of coarse rank       pre_ranking
    prerank_neg                                   out of the first 500 of what is before    recall

Their coarse ranking is what is called pre-ranking here: the last stage before the ranking model. The days that are there are read; the
last must be, as it is tested on. `rank_score` is the place that the ranking stage gave, negated; without one where it was not reached.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from prerank.data.errors import DataError
from prerank.datasets.recipe import Options, Recipe, Tables

DAYS = tuple(str(date(2024, 1, 13) + timedelta(days=n)) for n in range(37))  # to 18 February
STAGES = {
    "realshow": "impression",
    **dict.fromkeys(("rerank_pos", "rerank_neg", "rank_pos", "rank_neg"), "ranking"),
    "coarse_neg": "pre_ranking",
    "prerank_neg": "recall",
}  # the furthest first
FEEDBACK = ("effective_view", "long_view", "like", "follow", "forward", "comment")
_LABELS = FEEDBACK[:3]
_IDS = ("request_id", "user_id", "video_id", "request_timestamp")
_USER = ("device_id", "age", "gender", "province")
_VIDEO = ("author_id", "category_level_one", "category_level_two", "upload_type", "duration")
_TOGETHER = 16  # record batches of a file that are handled as one
_PENDING = 2_000_000  # rows of users and videos that wait to be merged, at least


def _file(day: str) -> str:
    return f"all_stage/{day}.feather"


class _Days:
    """The log of some days as a stream, and what it tells of users and videos on the way."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self.users, self.videos = _Latest("user_id", _USER), _Latest("video_id", _VIDEO)
        self.unstaged = 0

    def log(self) -> Iterator[pl.DataFrame]:
        for file in self.files:
            for frame in _read(file):
                self.users.update(frame)
                self.videos.update(frame)
                staged = frame.with_columns(stage=_stage()).filter(pl.col("stage").is_not_null())
                self.unstaged += frame.height - staged.height
                if staged.height:
                    ranked = pl.when(pl.col("stage").is_in(["impression", "ranking"])).then(-pl.col("rank_index").cast(pl.Float32))
                    yield staged.select(*_IDS, "stage", *_LABELS, ranked.alias("rank_score"))


class _Latest:
    """The last row of each key."""

    def __init__(self, key: str, columns: tuple[str, ...]) -> None:
        self.key, self.columns = key, columns
        self._merged: pl.DataFrame | None = None
        self._waiting: list[pl.DataFrame] = []

    def update(self, frame: pl.DataFrame) -> None:
        """Later frames count; merged only when as much waits as there is, so that no row is handled many times."""
        self._waiting.append(frame.select(self.key, *self.columns).unique(self.key, keep="last", maintain_order=True))
        known = 0 if self._merged is None else self._merged.height
        if sum(f.height for f in self._waiting) > max(_PENDING, known):
            self.get()

    def get(self) -> pl.DataFrame:
        parts = [*([] if self._merged is None else [self._merged]), *self._waiting]
        self._merged, self._waiting = pl.concat(parts).unique(self.key, keep="last", maintain_order=True), []
        return self._merged


def _stage() -> pl.Expr:
    """The furthest stage whose flag is 1; null where none is."""
    return pl.coalesce(pl.when(pl.col(flag) == 1).then(pl.lit(stage)) for flag, stage in STAGES.items())


def _read(file: Path) -> Iterator[pl.DataFrame]:
    """A day in parts. Raises DataError when it is no Feather file, or lacks a column."""
    columns = [*_IDS, *_USER, *_VIDEO, *STAGES, "rank_index", *_LABELS]
    try:
        with pa.memory_map(str(file)) as source, pa.ipc.open_file(source) as day:
            missing = [c for c in columns if c not in day.schema.names]
            if missing:
                raise DataError(f"file '{file}': must have the official columns; missing: {', '.join(missing)}")
            for first in range(0, day.num_record_batches, _TOGETHER):
                batches = [day.get_batch(i) for i in range(first, min(first + _TOGETHER, day.num_record_batches))]
                frame = pl.DataFrame(pa.Table.from_batches(batches).select(columns))
                yield frame.cast(dict.fromkeys((*_IDS, *_USER, *_VIDEO), pl.Int64))
    except pa.ArrowInvalid as error:
        raise DataError(f"file '{file}': is not a whole Feather file: {str(error).splitlines()[0]}") from None
    except pl.exceptions.PolarsError as error:
        raise DataError(f"file '{file}': ids and features must be whole numbers: {str(error).splitlines()[0]}") from None


def _tables(raw: Path, _: Options) -> Tables:
    days = _Days([raw / _file(day) for day in DAYS if (raw / _file(day)).is_file()])
    yield "log", days.log()
    yield "users", days.users.get()
    yield "items", days.videos.get()
    yield "notes", pl.DataFrame({"days": [len(days.files)], "rows_of_no_stage": [days.unstaged]})


def _settings(_: Options) -> dict[str, Any]:
    user = [{"name": n, "side": "user"} for n in ("user_id", *_USER)]
    item: list[dict[str, Any]] = [{"name": n, "side": "item"} for n in ("video_id", *_VIDEO[:-1])]
    return {
        "user_id": "user_id",
        "item_id": "video_id",
        "time": "request_timestamp",
        "request": "request_id",
        "stage": {"column": "stage"},
        "teacher": {"column": "rank_score"},
        "labels": {name: {"column": name} for name in _LABELS},
        "split": {"kind": "time", "validation": f"{DAYS[-2]} 00:00:00", "test": f"{DAYS[-1]} 00:00:00", "timezone": "Asia/Shanghai"},
        "features": [*user, *item, {"name": "duration", "side": "item", "kind": "numeric", "bins": 20}],
    }


RECFLOW = Recipe(
    name="recflow",
    title="RecFlow",
    licence="CC BY-SA 4.0",
    citation="Liu et al.: RecFlow: An Industrial Full Flow Recommendation Dataset, ICLR 2025, arXiv 2410.20868",
    rows="38 million impressions, 1.9 billion candidates (theirs)",
    obtain="all_stage/ of RecFlow from its authors' page (github.com/RecFlow-ICLR/RecFlow)",
    folders=("recflow", "RecFlow"),
    files=(_file(DAYS[-1]),),
    optional=tuple(_file(day) for day in DAYS[:-1]),
    tables=_tables,
    settings=_settings,
    refused=dict.fromkeys((*FEEDBACK, "playing_time", *STAGES, "rank_index", "rerank_index", "rank_score", "stage"),
                          "the cascade or the user decides it after the item was scored"),
)  # fmt: skip
