"""How long a scorer takes in process: one user against k candidates, another user and other candidates every call."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from prerank.serving.messages import Request
from prerank.serving.scorer import Scorer

if TYPE_CHECKING:
    import polars as pl

BEST = 100  # how many of the candidates come back


def milliseconds(scorer: Scorer, users: pl.Series, items: pl.Series, candidates: int, *, calls: int = 300, warm: int = 20,
                 least: int = 30, seconds: float = 5.0, seed: int = 0) -> list[float]:  # fmt: skip
    """Times of at most `calls` calls after `warm` ones, on the calling thread.

    users, items   raw ids to draw from, candidates with replacement, so that no call finds its rows in the cache
    least          so many are made even when `seconds` have passed
    """
    rng = np.random.default_rng(seed)
    times: list[float] = []
    begun = time.perf_counter()
    for call in range(warm + calls):
        if call >= least and time.perf_counter() - begun > seconds:
            break
        asked = items.gather(rng.integers(0, len(items), candidates)).to_list()
        request = Request(user=users[int(rng.integers(0, len(users)))], candidates=asked, k=min(BEST, candidates))
        start = time.perf_counter()
        scorer.score([request])
        times.append(1e3 * (time.perf_counter() - start))
    return times[warm:] if len(times) > warm else times
