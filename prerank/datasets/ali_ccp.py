"""Ali-CCP: recommendations shown on Taobao with clicks and conversions, official CSV files without header (RankTower's 'Alimama').

    sample_skeleton_{train,test}.csv    sample, click, conversion, index of the common features, number of features, features
    common_features_{train,test}.csv    index, number of features, features

A list of features is `field \\x02 feature \\x03 value`, separated by \\x01. What many rows have in common (the user's part) is stored
once. What is read, a field's official number in its name:

    user_id 101, user_121, user_122, user_124 ... user_129     profile; columns of the log, as they may change between visits
    item_id 205, item_206 category, item_207 shop, item_216 brand      one row an item: its first row in the files (ours)
    context_301                                                position

Left out, as in the usual preparation (AITM, 2021): the histories 109_14, 110_14, 127_14, 150_14 and the intention 210, which are long
weighted lists; and 508, 509, 702, 853, which cross a user's history with the item: no tower of one side may know them.

Preprocessing: rows with a conversion and no click, which cannot be, are dropped and counted (as AITM does). Split: the official train and
test files, which are apart in time; a tenth of train, by a hash of the row's number, is validation (ours). Two objectives: click and
conversion, the latter over all impressions. There are no times, so nothing that needs an order can be made from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prerank.data.errors import DataError
from prerank.data.hashing import uniform
from prerank.data.lookup import Lookup
from prerank.data.split import TEST, TRAIN, VALIDATION
from prerank.datasets.recipe import Options, Recipe, Tables
from prerank.datasets.stream import FirstSeen, stream_csv

PARTS = ("train", "test")
SHARE = 0.1  # of train rows for validation
USER = {"user_id": "101", **{f"user_{n}": n for n in ("121", "122", "124", "125", "126", "127", "128", "129")}}
ITEM = {"item_id": "205", **{f"item_{n}": n for n in ("206", "207", "216")}}
CONTEXT = {"context_301": "301"}
_COMMON = ("index", "count", "features")
_SAMPLE = ("sample", "click", "conversion", "index", "count", "features")
_LABELS = {"click": pl.Int8, "conversion": pl.Int8}


def skeleton(part: str) -> str:
    """Name of a part's file of rows."""
    return f"sample_skeleton_{part}.csv"


def common(part: str) -> str:
    """Name of a part's file of shared features."""
    return f"common_features_{part}.csv"


class _Samples:
    """One walk over all rows; the items and what was dropped are known at its end."""

    def __init__(self, raw: Path) -> None:
        self.raw = raw
        self.items = FirstSeen("item_id")
        self.impossible = 0

    def log(self) -> Iterator[pl.DataFrame]:
        first = 0
        for part in PARTS:
            users = _Common(self.raw / common(part))
            path = self.raw / skeleton(part)
            columns = {**_LABELS, "index": pl.String, "features": pl.String}
            allowed = dict.fromkeys(_LABELS, (0, 1))
            for rows in stream_csv(path, columns, names=_SAMPLE, required=tuple(columns), allowed=allowed):
                numbers = np.arange(first, first + rows.height)
                first += rows.height
                split = np.full(rows.height, TEST) if part == "test" else np.where(uniform(numbers, 0) < SHARE, VALIDATION, TRAIN)
                own = fields(rows["features"], {**ITEM, **CONTEXT})
                _known(path, own["item_id"], ITEM["item_id"], rows["features"])
                whole = pl.concat([rows.select(*_LABELS), users.of(path, rows["index"]), own], how="horizontal")
                whole = whole.with_columns(split=pl.Series(split, dtype=pl.UInt8))
                kept = whole.filter(~((pl.col("click") == 0) & (pl.col("conversion") == 1)))
                self.impossible += whole.height - kept.height
                self.items.update(kept.select(*ITEM))
                yield kept.drop([name for name in ITEM if name != "item_id"])


class _Common:
    """The users' fields of one file of common features."""

    def __init__(self, path: Path) -> None:
        self.path = path
        parts = []
        columns = {"index": pl.String, "features": pl.String}
        for rows in stream_csv(path, columns, names=_COMMON, required=("index", "features")):
            found = fields(rows["features"], USER)
            _known(path, found["user_id"], USER["user_id"], rows["features"])
            parts.append(found.with_columns(rows["index"]))
        every = pl.concat(parts).unique(maintain_order=True)
        twice = every["index"].filter(every["index"].is_duplicated())
        if len(twice):
            raise DataError(f"file '{path}': the index '{twice[0]}' stands for two different users or states of one")
        self._users = every.drop("index")
        self._rows = Lookup(every["index"])

    def of(self, path: Path, index: pl.Series) -> pl.DataFrame:
        """Users' fields of rows [n] of the file `path` that name this index."""
        found = self._rows.find(index)
        if (found < 0).any():
            lost = index[int((found < 0).argmax())]
            raise DataError(f"file '{path}': the common features '{lost}' are not in '{self.path.name}'")
        return self._users[found]


def fields(features: pl.Series, wanted: Mapping[str, str]) -> pl.DataFrame:
    """Lists of features as text [n] -> a column each of the wanted fields' (first) feature, null where a row has none.

    wanted   {column: field}
    """
    pattern = "(?:^|\x01){}\x02([0-9]+)\x03"
    return pl.DataFrame({name: features.str.extract(pattern.format(field)).cast(pl.Int64) for name, field in wanted.items()})


def _known(path: Path, ids: pl.Series, field: str, features: pl.Series) -> None:
    if ids.null_count():
        text = features[int(ids.is_null().arg_max() or 0)]
        raise DataError(f"file '{path}': every row must have field {field}, written field\\x02feature\\x03value; got {text[:60]!r}")


def _tables(raw: Path, _: Options) -> Tables:
    samples = _Samples(raw)
    yield "log", samples.log()
    yield "items", samples.items.get()
    yield "notes", pl.DataFrame({"conversions_without_click_dropped": [samples.impossible]})


def _settings(_: Options) -> dict[str, Any]:
    sides = (("user", USER), ("item", ITEM), ("context", CONTEXT))
    return {
        "user_id": "user_id",
        "item_id": "item_id",
        "labels": {name: {"column": name} for name in _LABELS},
        "split": {"kind": "column", "column": "split"},
        "features": [{"name": name, "side": side} for side, names in sides for name in names],
    }


ALI_CCP = Recipe(
    name="ali_ccp",
    title="Ali-CCP",
    licence="research use, see its page",
    citation="Ma et al.: Entire Space Multi-Task Model, SIGIR 2018",
    rows="about 84 million impressions",
    obtain="'Ali-CCP: Alibaba Click and Conversion Prediction' of Alibaba's Tianchi (a login is needed), its four files in one folder",
    folders=("ali-ccp",),
    files=tuple(name(part) for part in PARTS for name in (skeleton, common)),
    tables=_tables,
    settings=_settings,
    refused=dict.fromkeys((*_LABELS, "split"), "the impression's outcome decides it, or the row's part of the data"),
)
