"""Amazon Electronics, 5-core: reviews of 2014's release with their products' metadata, official gzipped files of one record a line.

    reviews_Electronics_5.json.gz   JSON: reviewerID, asin, overall (1.0 ... 5.0), unixReviewTime, and texts that are not read
    meta_Electronics.json.gz        Python literals, not JSON: asin and, each where it is known, categories (a list of paths), price, brand

Preprocessing (IntTower, CIKM 2022): positive is `overall >= 4`, nothing is dropped. Of the metadata only reviewed products are read.
`categories` are the distinct names along all paths, in order and without the root that all share (our choice; the released IntTower code
takes a product's text of categories as one value).

Fields: 2 user (id, mean rating) + 4 item (id, categories, price in 20 equal-frequency bins, mean rating). The released code takes both
means over all rows, the test rows included, and leaves out users without a positive: a leak, which is not offered here. Ours are smoothed
means of the label over train rows, a train row's own left out (`derive` in the settings; see the note on leave-one-out in
prerank/data/derive.py).

Split: random 70/10/20 (the papers: 80/20, and a fifth of train for validation).
"""

from __future__ import annotations

import ast
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from prerank.data.errors import DataError
from prerank.datasets.recipe import Options, Recipe, Tables

REVIEWS, META = "reviews_Electronics_5.json.gz", "meta_Electronics.json.gz"
BLOCK = 200_000  # reviews of a frame
MEANS = {"user_mean_rating": "user_id", "item_mean_rating": "asin"}
_START = b"{'asin': '"
_LOG: dict[str, Any] = {"user_id": pl.String, "asin": pl.String, "overall": pl.Float32, "time": pl.Int64}
_ITEM: dict[str, Any] = {"asin": pl.String, "categories": pl.List(pl.String), "price": pl.Float64, "brand": pl.String}


class _Review(msgspec.Struct):
    reviewerID: str
    asin: str
    overall: float
    unixReviewTime: int


def _tables(raw: Path, _: Options) -> Tables:
    reviewed: set[str] = set()
    yield "log", _reviews(raw / REVIEWS, reviewed)
    yield "items", pl.DataFrame(list(_products(raw / META, reviewed)), schema=_ITEM, orient="row")


def _reviews(path: Path, reviewed: set[str]) -> Iterator[pl.DataFrame]:
    """The log in blocks; `reviewed` gathers the products."""
    decode = msgspec.json.Decoder(_Review).decode
    rows: list[tuple[str, str, float, int]] = []
    for number, line in _lines(path):
        try:
            review = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DataError(f"file '{path}' line {number}: is no review: {error}") from None
        if not 1 <= review.overall <= 5:
            raise DataError(f"file '{path}' line {number}: overall must be from 1 to 5, got {review.overall:g}")
        reviewed.add(review.asin)
        rows.append((review.reviewerID, review.asin, review.overall, review.unixReviewTime))
        if len(rows) == BLOCK:
            yield pl.DataFrame(rows, schema=_LOG, orient="row")
            rows = []
    yield pl.DataFrame(rows, schema=_LOG, orient="row")


def _products(path: Path, reviewed: set[str]) -> Iterator[tuple[str, list[str], float | None, str | None]]:
    """asin, categories, price and brand of each reviewed product, the first time it comes."""
    left = set(reviewed)
    for number, line in _lines(path):
        if line.startswith(_START) and line[len(_START) :].partition(b"'")[0].decode("utf-8", "replace") not in left:
            continue  # most products: their line need not be parsed, which is the slow part
        try:
            product = ast.literal_eval(line.decode())
            asin = product["asin"]
            names = dict.fromkeys(str(name) for way in product.get("categories") or () for name in way[1:])
            price = None if product.get("price") is None else float(product["price"])
        except (ValueError, SyntaxError, TypeError, KeyError, AttributeError, RecursionError, MemoryError) as error:
            said = "lacks asin" if isinstance(error, KeyError) else "is no product written as a Python literal"
            raise DataError(f"file '{path}' line {number}: {said}; got {line[:60]!r}") from None
        if asin in left:
            left.discard(asin)
            yield asin, list(names), price, product.get("brand")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number, line) of a gzipped file, blank lines passed over."""
    try:
        with gzip.open(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.strip()
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"file '{path}': is not a whole gzip file: {reason}") from None


def _settings(_: Options) -> dict[str, Any]:
    means = [{"name": name, "kind": "target_mean", "by": key, "label": "like"} for name, key in MEANS.items()]
    return {
        "user_id": "user_id",
        "item_id": "asin",
        "time": "time",
        "labels": {"like": {"rule": "overall >= 4"}},
        "split": {"kind": "random", "validation": 0.1, "test": 0.2},
        "derive": means,
        "features": [
            {"name": "user_id", "side": "user"},
            {"name": "user_mean_rating", "side": "user", "kind": "numeric"},
            {"name": "asin", "side": "item"},
            {"name": "categories", "side": "item", "kind": "multi", "max_length": 8},
            {"name": "price", "side": "item", "kind": "numeric", "bins": 20},
            {"name": "item_mean_rating", "side": "item", "kind": "numeric"},
        ],
    }


AMAZON = Recipe(
    name="amazon",
    title="Amazon Electronics, 5-core",
    licence="research use, see its page",
    citation="McAuley et al.: Image-based Recommendations on Styles and Substitutes, SIGIR 2015",
    rows="1,689,188 reviews",
    obtain=f"{REVIEWS} and {META} of the 'Amazon product data' by Julian McAuley, release of 2014 (freely downloadable)",
    folders=("amazon-electronics",),
    files=(REVIEWS, META),
    tables=_tables,
    settings=_settings,
    refused={"overall": "the label is made from it"},
)
