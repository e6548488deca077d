"""How fast training on lists is beside training on rows: candidate pairs per CPU-second on one thread.

    PRERANK_DATA=... python -m benchmarks.list_speed [--rounds 12]

MovieLens-1M (honest protocol), D = 32, 300-300-128, Adam 1e-3. Rows: batches of 8192 impressions. Lists: 64 users a batch, up to 300
candidates each, padding not counted as pairs. Both ways take turns in one process, a few batches a turn, loading included; the ratio is
the median over turns of (list pairs per CPU-second / row pairs per CPU-second), the first turn left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks import record
from benchmarks.ours import MODELS
from prerank import build
from prerank.batch import Batch
from prerank.config import parse
from prerank.data import Dataset, ListLoader, Loader, prepare
from prerank.datasets import resolve
from prerank.training.device import configure
from prerank.training.optimizer import Optimizer
from prerank.training.step import train_step

ROOT = Path(__file__).resolve().parents[1]
BAR = 0.7  # of the speed on rows
ROWS, LISTS, LONGEST = 8192, 64, 300
STAGES: dict[str, dict[str, Any]] = {
    "impressions": {"impression": "all"},
    "impressions and as many random items": {"impression": "all", "random": {"ratio": 1, "popularity": 0.75}},
    "impressions and 200 random items": {"impression": "all", "random": {"count": 200, "popularity": 0.75}},
}


class Way:
    """One model trained one way, a turn at a time."""

    def __init__(self, dataset: Dataset, model: str, loss: str, precision: str, stages: dict[str, Any] | None) -> None:
        lists = None if stages is None else {"by": "user", "max_length": LONGEST, "stages": stages}
        training = {"precision": precision, "threads": 1, "device": "cpu", "lists": lists}
        config = parse({"model": MODELS[model], "objective": [{"loss": loss}], "training": training})
        configure(config.training)
        torch.manual_seed(0)
        self.dataset, self.settings, self.epoch = dataset, config.training, 0
        self.model = build.model(config.model, dataset.schema, dataset.sizes).train()
        self.objective = build.objective(config.objective, dataset.schema, dataset.counts)
        counts = {name: torch.from_numpy(np.array(c)) for name, c in dataset.counts.items()}
        self.optimizer = Optimizer(self.model, self.settings.optimizer, counts)
        self.loader: Loader | ListLoader
        if self.settings.lists is None:
            self.loader = Loader(dataset, dataset.rows("train"), ROWS)
        else:
            self.loader = ListLoader(dataset, "train", self.settings.lists, LISTS)
        self.batches = self._epochs()
        self.speeds: list[float] = []

    def _epochs(self) -> Iterator[Batch]:
        while True:
            yield from self.loader.epoch(self.epoch)
            self.epoch += 1

    def turn(self, batches: int) -> None:
        """Learn from so many batches, and note how many pairs a CPU-second had."""
        pairs, began = 0, time.process_time()
        for _ in range(batches):
            batch = next(self.batches)
            values = train_step(self.model, self.objective, self.optimizer, batch, precision=self.settings.precision)
            float(values["loss"])
            pairs += int(batch.where.sum())
        self.speeds.append(pairs / (time.process_time() - began))


def compare(dataset: Dataset, model: str, precision: str, rounds: int, batches: int) -> list[dict[str, Any]]:
    """One line a way of making lists."""
    rows = Way(dataset, model, "logloss", precision, None)
    both = [(what, loss) for what in STAGES for loss in ("logloss", "softmax")]
    ways = {(what, loss): Way(dataset, model, loss, precision, STAGES[what]) for what, loss in both}
    for _ in range(rounds + 1):
        rows.turn(batches)
        for way in ways.values():
            way.turn(batches)
    found = []
    for (what, loss), way in ways.items():
        ratios = np.array(way.speeds[1:]) / np.array(rows.speeds[1:])
        found.append({"model": model, "precision": precision, "lists": what, "loss": loss, "ratio": round(float(np.median(ratios)), 3),
                      "worst": round(float(ratios.min()), 3), "best": round(float(ratios.max()), 3),
                      "list_pairs_per_cpu_second": round(float(np.median(way.speeds[1:]))),
                      "rows_per_cpu_second": round(float(np.median(rows.speeds[1:])))})  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batches", type=int, default=4, help="of a turn")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["bf16", "fp32"])
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "list-speed.json")
    options = parser.parse_args()
    dataset = prepare(resolve(parse({"data": {"recipe": "movielens"}}).data))
    found = [line for m in options.models for p in options.precisions for line in compare(dataset, m, p, options.rounds, options.batches)]
    table = Table("model", "precision", "lists", "loss", "pairs / CPU-s", "rows / CPU-s", "ratio", "worst..best")
    for line in found:
        table.add_row(line["model"], line["precision"], line["lists"], line["loss"], f"{line['list_pairs_per_cpu_second']:,}",
                      f"{line['rows_per_cpu_second']:,}", f"{line['ratio']:.2f}", f"{line['worst']:.2f}..{line['best']:.2f}")  # fmt: skip
    Console(width=160).print(table)
    record.write(options.out, benchmark="list_speed", seed=0, bar=BAR, results=found)


if __name__ == "__main__":
    main()
