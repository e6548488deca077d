"""The MovieLens preparation behind IntTower's published table (CIKM 2022, released code). It LEAKS test labels into test features.

What it does, step by step, so that the published figures can be reproduced and understood:

 1. rows rated 3 are dropped, y = rating > 3; rows are sorted by time;
 2. random 80/20 by scikit-learn's `train_test_split` seeded 1023 (its permutation is repeated here with numpy);
 3. in each part, users without a positive are dropped;
 4. in each part, `user_mean_rating` and `item_mean_rating` are means of y over that same part's rows: **the leak**;
 5. both are min-max scaled by the range they have in the test part;
 6. the joins leave the rows ordered by movie, then user, then time; the last 20 % of the train part (a block of movies, mostly unseen in
    the rest) is the validation split.

The released code sorts with pandas' unstable default and never fixed how equal seconds are ordered; we sort stably.
"""

from __future__ import annotations

import math

import numpy as np
import polars as pl

SEED = 1023
TEST = VALIDATION = 0.2
MEANS = ("user_mean_rating", "item_mean_rating")


def with_leaked_means(log: pl.DataFrame) -> pl.DataFrame:
    """user_id, movie_id, rating, ts -> the rows kept, with both means and `split` (0 train, 1 validation, 2 test)."""
    kept = log.filter(pl.col("rating") != 3).sort("ts", maintain_order=True)
    train, test = shuffle_split(kept.height)
    train_part, test_part = (_means_of(kept[rows]) for rows in (train, test))
    low, high = test_part.select(MEANS).min().row(0), test_part.select(MEANS).max().row(0)
    scaled = [(pl.col(m) - a) / ((b - a) or 1.0) for m, a, b in zip(MEANS, low, high, strict=True)]
    first = int(train_part.height * (1 - VALIDATION))
    splits = (pl.int_range(pl.len()) >= first).cast(pl.UInt8), pl.lit(2, pl.UInt8)
    parts = [p.with_columns(*scaled, split=s) for p, s in zip((train_part, test_part), splits, strict=True)]
    return pl.concat(parts).with_columns(pl.col(MEANS).cast(pl.Float32))


def shuffle_split(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of train and test as scikit-learn's train_test_split(test_size=0.2, random_state=1023) gives them, in its order."""
    order = np.random.RandomState(SEED).permutation(rows)
    count = math.ceil(TEST * rows)
    return order[count:], order[:count]


def _means_of(part: pl.DataFrame) -> pl.DataFrame:
    """Steps 3 and 4 inside one part, in the order of the joins: movie, user, then as it was."""
    label = (pl.col("rating") > 3).cast(pl.Float64)
    with_positive = part.filter(label.max().over("user_id") > 0)
    user, item = label.mean().over("user_id").alias(MEANS[0]), label.mean().over("movie_id").alias(MEANS[1])
    return with_positive.with_columns(user, item).sort("movie_id", "user_id", maintain_order=True)
