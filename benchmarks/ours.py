"""Our models as contenders of `training_speed`: the package's own loader, model, optimiser and step.

Rows come from the prepared data set, the same that the baselines' split was written from.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.baselines.worker import arguments, serve
from prerank import build
from prerank.batch import Batch
from prerank.config import Config, parse
from prerank.data import Dataset, Loader
from prerank.training import predict
from prerank.training.device import configure
from prerank.training.optimizer import Optimizer
from prerank.training.step import train_step

MODELS: dict[str, dict[str, Any]] = {
    "dssm": {"name": "dssm", "hidden": [300, 300, 128], "width": None},
    "inttower": {"name": "inttower", "hidden": [300, 300, 128], "heads": 2, "head_width": 64},
}


class Ours:
    """One of our models in its first epoch."""

    def __init__(self, dataset: Dataset, config: Config) -> None:
        settings = config.training
        configure(settings)
        torch.manual_seed(settings.seed)
        self.dataset, self.settings = dataset, settings
        self.model = build.model(config.model, dataset.schema, dataset.sizes).train()
        self.objective = build.objective(config.objective, dataset.schema, dataset.counts)
        counts = {name: torch.from_numpy(np.array(c)) for name, c in dataset.counts.items()}
        self.optimizer = Optimizer(self.model, settings.optimizer, counts)
        rows, shuffle = dataset.rows("train"), settings.shuffle
        loader = Loader(dataset, rows, settings.batch_size, shuffle=shuffle, seed=settings.seed, dedup=settings.dedup)
        self.batches: Iterator[Batch] = loader.epoch(0)

    def train(self, batches: int) -> tuple[int, int]:
        done = rows = 0
        while done < batches and (batch := next(self.batches, None)) is not None:
            values = train_step(self.model, self.objective, self.optimizer, batch, precision=self.settings.precision)
            float(values["loss"])  # the progress bar reads it each step
            done, rows = done + 1, rows + batch.rows
        return done, rows

    def score(self) -> np.ndarray:
        loader = Loader(self.dataset, self.dataset.rows("test"), 16384, shuffle="none")
        logits, _ = predict(self.model, loader.epoch(0))
        return logits[:, 0]


def config_of(model: str, precision: str, batch_size: int, seed: int) -> Config:
    """What a YAML file for this contender would say."""
    training = {"precision": precision, "matmul": "medium", "batch_size": batch_size, "seed": seed, "threads": 1, "device": "cpu"}
    return parse({"model": MODELS[model], "training": training})


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", choices=list(MODELS), default="inttower")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--dataset", type=Path, required=True, help="folder of the prepared data set")
    options = parser.parse_args()
    serve(lambda: Ours(Dataset(options.dataset), config_of(options.model, options.precision, options.batch_size, options.seed)))


if __name__ == "__main__":
    main()
