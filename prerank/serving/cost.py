"""What a candidate costs where its score is more than products and maxima of stored numbers."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

CANDIDATES = 1000
REPEATS = 3


def us_per_candidate(score: Callable[[NDArray[np.int64]], object], items: int) -> float:
    """Microseconds that `score(rows)` takes for each of CANDIDATES random rows of `items`: the least of REPEATS, after a first call.

    By the calling thread's CPU clock, which other processes disturb less than the wall's.
    """
    rows = np.random.default_rng(0).integers(0, items, CANDIDATES)
    score(rows)
    seconds = []
    for _ in range(REPEATS):
        start = time.thread_time()
        score(rows)
        seconds.append(time.thread_time() - start)
    return min(seconds) / CANDIDATES * 1e6
