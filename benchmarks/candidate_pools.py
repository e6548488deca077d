"""Are retrieved candidates worth learning from, or does the pool give them away? The same trainings in two pools, one of them LEAKY.

    prerank leaderboard configs/leaderboards/ml1m-ranktower.yaml
    python -m benchmarks.candidate_pools [--runs runs/leaderboard] [--users 1000]

Candidates are made as RankTower makes them: what a two-tower retrieves for a user, minus what the user was ever shown, in any split. So
each of them is a movie that the user likes by its looks and that is not among its test positives. Both pools hold a user's test ratings and
all movies but some:

    ours    without the movies of the user's train rows of every stage: nothing that training called a negative is asked about
    LEAKY   without the movies that the user was shown in train, no more: train's candidates are asked about, and a model that has
            learned them by heart knows that none of them is a positive

Rows and seeds are the board's, their epoch chosen in its pool. Beside them MF, which is nothing but memory, is trained here with all of a
user's candidates in its lists and with none, and asked in both pools of validation after every epoch: whether the leak can be learned.
Users are drawn by lot, the same for all.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from benchmarks import record
from prerank.config import Evaluation, load
from prerank.data import Dataset
from prerank.metrics import Grouped, resampled_means
from prerank.retrieval import Known
from prerank.run import open_run, train
from prerank.training import offline
from prerank.training.pool import Measured, Pool

ROWS = ("hybrid, full-stage", "without candidates", "without random", "without both")
MF: dict[str, dict[str, Any]] = {
    "with candidates": {"impression": 50, "recall": "all", "random": 40},
    "without candidates": {"impression": 50, "random": 40},
}
EPOCHS = 12
CONFIG = Path("configs/ml1m/ranktower-hybrid.yaml")
METRICS = ("recall@100", "ndcg@100")
SETTINGS = Evaluation.model_validate({"by": "user", "stages": {"impression": "all", "recall": "all", "random": "all"}, "at": [100]})
LEVEL = 0.99


def some(pool: Pool, users: int) -> Pool:
    """A pool of so many users, by lot."""
    kept = pool.loader.sampler.kept
    pool.loader.sampler.kept = np.sort(np.random.default_rng(0).choice(kept, min(users, len(kept)), replace=False))
    return pool


def pools(dataset: Dataset, users: int, split: str = "test") -> dict[str, Pool]:
    """Both pools, of the same users."""
    made = {name: some(Pool(dataset, split, SETTINGS), users) for name in ("ours", "LEAKY")}
    shown = Known(dataset, dataset.rows("train"))
    made["LEAKY"].loader.sampler._known = (shown.start, shown.items.astype(np.int32))  # what no setting can ask for
    return made


def memory(folder: Path, stages: dict[str, Any], users: int) -> list[dict[str, float]]:
    """MF on lists of these stages: {'ours recall@100': .., 'LEAKY recall@100': ..} of validation after each epoch."""
    curve: list[dict[str, float]] = []

    class Both(Pool):
        def __init__(self, dataset: Dataset, split: str, settings: Evaluation) -> None:
            super().__init__(dataset, split, settings)
            self.pools = pools(dataset, users, split)

        def measure(self, model: nn.Module, device: torch.device | str = "cpu") -> Measured:
            found = {name: pool.measure(model, device) for name, pool in self.pools.items()}
            curve.append({f"{name} {m}": one.metrics[m].value for name, one in found.items() for m in METRICS})
            print(f"{folder.name}: {curve[-1]}", flush=True)
            return found["ours"]

    lists = {"by": "user", "max_length": 300, "stages": stages}
    changes = [f"output={folder}", f"training.lists={json.dumps(lists)}", "model={name: mf, width: 64}", "training.threads=1",
               "objective=[{loss: softmax}]", f"training.epochs={EPOCHS}", f"training.patience={EPOCHS}",
               "training.optimizer={lr: 0.01}"]  # fmt: skip
    with mock.patch.object(offline, "Pool", Both):
        train(load(CONFIG, changes), overwrite=True)
    return curve


def measured(folders: list[Path], users: int) -> dict[str, dict[str, list[Grouped]]]:
    """{pool: {metric: a training each}}"""
    found: dict[str, dict[str, list[Grouped]]] = {}
    for folder in folders:
        run = open_run(folder)
        for name, pool in pools(run.dataset, users).items():
            one = run.retrieve(pool)
            for metric in METRICS:
                found.setdefault(name, {}).setdefault(metric, []).append(one.metrics[metric])
            print(f"{folder.name}, {name}: " + ", ".join(f"{m} {one.metrics[m].value:.4f}" for m in METRICS), flush=True)
    return found


def summary(found: dict[str, dict[str, dict[str, list[Grouped]]]]) -> dict[str, Any]:
    """Values seed by seed, and what candidates and random items add, paired over users, of the seeds' mean."""
    results: dict[str, Any] = {}
    for pool in ("ours", "LEAKY"):
        for metric in METRICS:
            of = {row: by[pool][metric] for row, by in found.items()}
            mean = {row: Grouped(np.mean([g.values for g in each], axis=0), each[0].weights) for row, each in of.items()}
            drawn = resampled_means(mean, resamples=1000)
            less = {row: drawn.difference(ROWS[0], row, LEVEL) for row in of if row != ROWS[0] and ROWS[0] in of}
            results.setdefault(pool, {})[metric] = {
                "values": {row: [g.value for g in each] for row, each in of.items()},
                "full_stage_minus": {row: {"value": d.value, "low": d.low, "high": d.high} for row, d in less.items()},
            }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--board", type=Path, default=Path("results/leaderboard-ml1m-ranktower.json"))
    parser.add_argument("--runs", type=Path, default=Path("runs/leaderboard"))
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("results/candidate-pools.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    trainings = json.loads(given.board.read_text())["trainings"]
    found = {row: measured([given.runs / name for name in trainings[row]], given.users) for row in ROWS if trainings.get(row)}
    curves = {row: memory(given.runs / f"candidate-pools-{row.partition(' ')[0]}", stages, given.users) for row, stages in MF.items()}
    record.write(given.out, benchmark="candidate_pools", seed=0, results=summary(found), memory=curves, users=given.users, level=LEVEL,
                 leaky="train's candidates are in the pool, and none of them can be a positive")  # fmt: skip


if __name__ == "__main__":
    main()
