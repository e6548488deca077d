"""What scoring costs: the exported model of every row through the very scorer that serves, one after another in one process.

So the numbers are comparable with each other; between machines only their ratios are. Time asks for shapes, not for weights: a row that
was trained on another machine is measured with fresh ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prerank import build
from prerank.config import Config
from prerank.data import prepare
from prerank.datasets import resolve
from prerank.run import Run, open_run
from prerank.serving import Generation, GenerationError, Scorer, export
from prerank.serving.timing import milliseconds

CANDIDATES = (100, 300, 1_000, 3_000, 10_000)
SHOWN = (1_000, 10_000)  # of them in the tables; all are in the record, and in the picture


def of_run(run: Run, candidates: Sequence[int] = CANDIDATES, calls: int = 300) -> dict[str, dict[str, float]]:
    """{k: {p50_ms, p99_ms, calls}} of one run on one thread. Raises GenerationError for a model that cannot be served."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="prerank-latency-") as folder:
            options = run.config.model.model_dump(mode="json")
            synergy = None if run.config.synergy is None else run.config.synergy.model_dump(mode="json")
            generation = Generation(export(run.dataset, run.model, folder=folder, options=options, synergy=synergy))
            scorer = Scorer(generation, build.served)
            found = {}
            for k in candidates:
                times = milliseconds(scorer, run.dataset.user_ids, run.dataset.item_ids, k, calls=calls)
                p50, p99 = np.percentile(times, (50, 99))
                found[str(k)] = {"p50_ms": round(float(p50), 4), "p99_ms": round(float(p99), 4), "calls": len(times)}
    finally:
        torch.set_num_threads(threads)
    return found


def untrained(config: Config) -> Run:
    """A run of these settings with fresh weights; nothing is written. Raises ConfigError, DataError."""
    resolved = config.model_copy(update={"data": resolve(config.data)})
    dataset = prepare(resolved.data)
    return Run(Path(config.output), resolved, dataset, build.model(config.model, dataset.schema, dataset.sizes, config.synergy).eval())


def measure(runs: Mapping[str, Path | Config], candidates: Sequence[int] = CANDIDATES, calls: int = 300,
            say: Callable[[str], None] = lambda line: None) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Label -> its latencies, or {"why": ...} where the model cannot be served.

    runs   label -> run folder, or the settings of one that is elsewhere
    """
    found: dict[str, dict[str, Any]] = {}
    for label, run in runs.items():
        try:
            found[label] = of_run(untrained(run) if isinstance(run, Config) else open_run(run), candidates, calls)
        except GenerationError as error:
            found[label] = {"why": str(error)}
        said = (f"{k} candidates {v['p50_ms']:.3f} ms" for k, v in found[label].items()) if "why" not in found[label] else ["not servable"]
        say(f"latency of {label}: {', '.join(said)}")
    return found
