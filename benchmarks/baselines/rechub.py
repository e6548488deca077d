"""torch-rechub's DSSM, trained the way its tutorials do: MatchTrainer (point-wise) over MatchDataGenerator's loader.

Runs in an environment of its own, where torch-rechub is installed and prerank is not.

    --loader own      its loader: rows from a dictionary of columns, collated into batches
    --loader ready    the same trainer handed batches that are columns sliced at once: what it would do if loading were free
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch_rechub.basic.features import SequenceFeature, SparseFeature
from torch_rechub.models.matching import DSSM
from torch_rechub.trainers import MatchTrainer
from torch_rechub.utils.data import MatchDataGenerator

from benchmarks.baselines.worker import ITEM, USER, Columns, arguments, read, serve

WIDTH, HIDDEN = 32, [300, 300, 128]


class RechubDSSM:
    """torch-rechub 0.9.0's model and trainer; Adam 1e-3, and no weight decay, as ours has none."""

    def __init__(self, train: Columns, test: Columns, sizes: dict[str, int], batch_size: int, loader: str, seed: int) -> None:
        torch.manual_seed(seed)
        users = [SparseFeature(n, sizes[n], WIDTH) for n in USER]
        genres = SequenceFeature("genres", sizes["genres"], WIDTH, pooling="mean", padding_idx=0)
        items = [SparseFeature("movie_id", sizes["movie_id"], WIDTH), genres]
        tower = {"dims": HIDDEN, "activation": "relu", "dropout": 0}
        self.model = DSSM(users, items, user_params=tower, item_params=tower)
        self.trainer = MatchTrainer(self.model, mode=0, optimizer_params={"lr": 1e-3}, n_epoch=1, device="cpu")
        self.test, self.batch_size = test, batch_size
        x, y = {n: train[n] for n in (*USER, *ITEM)}, train["label"]
        own, _, _ = MatchDataGenerator(x, y).generate_dataloader(x, x, batch_size=batch_size, num_workers=0)
        self.batches = iter(own) if loader == "own" else _slices(x, y, batch_size, seed)
        self.left = len(y)

    def train(self, batches: int) -> tuple[int, int]:
        rows = min(batches * self.batch_size, self.left)
        done = -(-rows // self.batch_size)
        self.trainer.train_one_epoch(itertools.islice(self.batches, done))
        self.left -= rows
        return done, rows

    def score(self) -> np.ndarray:
        self.model.eval()
        with torch.no_grad():
            parts = [
                self.model({n: torch.from_numpy(self.test[n][first : first + 16384]) for n in (*USER, *ITEM)}).numpy()
                for first in range(0, len(self.test["label"]), 16384)
            ]
        return np.concatenate(parts)


def _slices(x: Columns, y: np.ndarray, batch_size: int, seed: int) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
    order = np.random.default_rng(seed).permutation(len(y))
    for first in range(0, len(order), batch_size):
        at = order[first : first + batch_size]
        yield {n: torch.from_numpy(v[at]) for n, v in x.items()}, torch.from_numpy(y[at])


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--loader", choices=("own", "ready"), default="own")
    options = parser.parse_args()
    serve(lambda: RechubDSSM(*read(options.split), options.batch_size, options.loader, options.seed))


if __name__ == "__main__":
    main()
