"""How long an answer takes: the median of one user against k candidates, through the very scorer that serves."""

from __future__ import annotations

import statistics
import tempfile
import time

import numpy as np
import torch

from prerank import build
from prerank.config import Model
from prerank.data import Dataset
from prerank.index import DType
from prerank.serving import Request, Scorer, export
from prerank.serving.generation import Generation

CALLS, WARM, SECONDS, BEST = 200, 20, 5.0, 100


def p50(config: Model, dataset: Dataset, candidates: int, dtype: DType = "fp32") -> float:
    """Milliseconds of the median call for a model of these settings, in process, on one thread.

    Weights do not change the time, so the model is a fresh one: a search asks this before it trains. Every call has another user
    and other candidates, drawn with replacement, so that no call finds its rows in the cache; after five seconds no further call is made.
    """
    torch.manual_seed(0)
    model = build.model(config, dataset.schema, dataset.sizes)
    threads, rng = torch.get_num_threads(), np.random.default_rng(0)
    items, users = dataset.item_ids, dataset.user_ids
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="prerank-latency-") as folder:
            generation = Generation(export(dataset, model, folder=folder, options=config.model_dump(mode="json"), dtype=dtype))
            scorer = Scorer(generation, build.served)
            times: list[float] = []
            begun = time.perf_counter()
            for call in range(WARM + CALLS):
                asked = items.gather(rng.integers(0, len(items), candidates)).to_list()
                request = Request(user=users[int(rng.integers(0, len(users)))], candidates=asked, k=min(BEST, candidates))
                start = time.perf_counter()
                scorer.score([request])
                times.append(time.perf_counter() - start)
                if call >= WARM and time.perf_counter() - begun > SECONDS:
                    break
    finally:
        torch.set_num_threads(threads)
    return 1000 * statistics.median(times[WARM:])
