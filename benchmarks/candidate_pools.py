"""Are retrieved candidates worth learning from, or does the pool give them away? The same trainings in two pools, one of them LEAKY.

    prerank leaderboard configs/leaderboards/ml1m-ranktower.yaml
    python -m benchmarks.candidate_pools [--runs runs/leaderboard] [--users 1000]

Candidates are made as RankTower makes them: what a two-tower retrieves for a user, minus what the user was ever shown, in any split. So
each of them is a movie that the user likes by its looks and that is not among its test positives. Both pools hold a user's test ratings and
all movies but some:

    ours    without the movies of the user's train rows of every stage: nothing that training called a negative is asked about
    LEAKY   without the movies that the user was shown in train, no more: train's candidates are asked about, and a model that has
            learned them by heart knows that none of them is a positive

No model is trained here: rows and seeds are the board's, their epoch chosen in its pool. Users are drawn by lot, the same for all.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import record
from prerank.config import Evaluation
from prerank.data import Dataset
from prerank.metrics import Grouped, resampled_means
from prerank.retrieval import Known
from prerank.run import open_run
from prerank.training.pool import Pool

ROWS = ("hybrid, full-stage", "without candidates", "without random", "without both")
METRICS = ("recall@100", "ndcg@100")
SETTINGS = Evaluation.model_validate({"by": "user", "stages": {"impression": "all", "recall": "all", "random": "all"}, "at": [100]})
LEVEL = 0.99


def pools(dataset: Dataset, users: int) -> dict[str, Pool]:
    """Both pools of the test part, of the same users."""
    made = {"ours": Pool(dataset, "test", SETTINGS), "LEAKY": Pool(dataset, "test", SETTINGS)}
    shown = Known(dataset, dataset.rows("train"))
    for name, pool in made.items():
        sampler = pool.loader.sampler
        sampler.kept = np.sort(np.random.default_rng(0).choice(sampler.kept, min(users, len(sampler.kept)), replace=False))
        if name == "LEAKY":
            sampler._known = (shown.start, shown.items.astype(np.int32))  # what no setting can ask for
    return made


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
    record.write(given.out, benchmark="candidate_pools", seed=0, results=summary(found), users=given.users, level=LEVEL,
                 leaky="train's candidates are in the pool, and none of them can be a positive")  # fmt: skip


if __name__ == "__main__":
    main()
