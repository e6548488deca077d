"""MovieLens-1M: one million ratings of 3,900 movies by 6,040 users, from the official `.dat` files.

Two protocols. `honest` (default): rating 3 dropped, positive above 3, random 70/10/20, no target statistics.
`inttower-official`: the preparation behind IntTower's published table, which LEAKS; see `official.py`. It is there to be compared with,
and every table must say LEAKY.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import Field

from prerank.datasets.files import read_dat
from prerank.datasets.official import with_leaked_means
from prerank.datasets.recipe import Options, Recipe, Tables

FILES: dict[str, dict[str, Any]] = {
    "ratings.dat": {"user_id": pl.Int32, "movie_id": pl.Int32, "rating": pl.Int8, "ts": pl.Int64},
    "users.dat": {"user_id": pl.Int32, "gender": pl.String, "age": pl.Int16, "occupation": pl.Int16, "zip": pl.String},
    "movies.dat": {"movie_id": pl.Int32, "title": pl.String, "genres": pl.String},
}


class MovieLensOptions(Options):
    """Which preparation."""

    protocol: Literal["honest", "inttower-official"] = Field("honest", description="inttower-official leaks test labels")


def _tables(raw: Path, options: MovieLensOptions) -> Tables:
    log, users, items = (read_dat(raw / name, columns) for name, columns in FILES.items())
    yield "log", with_leaked_means(log) if options.protocol == "inttower-official" else log
    yield "users", users
    yield "items", items.with_columns(year=pl.col("title").str.extract(r"\((\d{4})\)\s*$").cast(pl.Int16))


def _settings(options: MovieLensOptions) -> dict[str, Any]:
    user = [{"name": n, "side": "user"} for n in ("user_id", "gender", "age", "occupation")]
    item = [{"name": "movie_id", "side": "item"}, {"name": "genres", "side": "item", "kind": "multi", "separator": "|", "max_length": 6}]
    common = {"user_id": "user_id", "item_id": "movie_id", "time": "ts", "labels": {"like": {"rule": "rating > 3"}}}
    if options.protocol == "honest":
        split = {"kind": "random", "validation": 0.1, "test": 0.2}
        return {**common, "drop": "rating = 3", "split": split, "features": user + item}
    user.append({"name": "user_mean_rating", "side": "user", "kind": "numeric", "encoding": "raw"})
    item.append({"name": "item_mean_rating", "side": "item", "kind": "numeric", "encoding": "raw"})
    return {**common, "split": {"kind": "column", "column": "split"}, "features": user + item}


MOVIELENS = Recipe(
    name="movielens",
    title="MovieLens-1M",
    licence="research use, no redistribution, see its README",
    citation="Harper & Konstan: The MovieLens Datasets, ACM TiiS 5(4), 2015, doi 10.1145/2827872",
    rows="1,000,209 ratings",
    url="https://files.grouplens.org/datasets/movielens/ml-1m.zip",
    md5="c4d9eecfca2ab87c1945afe126590906",
    folders=("ml-1m",),
    files=tuple(FILES),
    options=MovieLensOptions,
    tables=_tables,
    settings=_settings,
    refused={"rating": "the label is made from it"},
)
