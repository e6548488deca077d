"""How long an answer takes: the median of one user against k candidates, through the very scorer that serves."""

from __future__ import annotations

import statistics
import tempfile

import torch

from prerank import build
from prerank.config import Model
from prerank.data import Dataset
from prerank.index import DType
from prerank.serving import Scorer, export
from prerank.serving.generation import Generation
from prerank.serving.timing import milliseconds


def p50(config: Model, dataset: Dataset, candidates: int, dtype: DType = "fp32") -> float:
    """Milliseconds of the median call for a model of these settings, in process, on one thread.

    Weights do not change the time, so the model is a fresh one: a search asks this before it trains.
    """
    torch.manual_seed(0)
    model = build.model(config, dataset.schema, dataset.sizes)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="prerank-latency-") as folder:
            generation = Generation(export(dataset, model, folder=folder, options=config.model_dump(mode="json"), dtype=dtype))
            times = milliseconds(Scorer(generation, build.served), dataset.user_ids, dataset.item_ids, candidates)
    finally:
        torch.set_num_threads(threads)
    return statistics.median(times)
