"""Rows are compared over the seeds that both have."""

import shutil

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from prerank.leaderboard.leaderboard import leaderboard
from prerank.leaderboard.shared import difference, views
from prerank.metrics import resampled

SEEDS = {"three": [0, 1, 2], "one": [0], "other": [5]}


def noisy():
    """Scores that are the labels and a seed's own noise: a mean over seeds is better than any of them."""
    rng = np.random.default_rng(0)
    y = rng.random(4_000) < 0.4
    return y, rng.integers(0, 300, 4_000), {seed: y + 2 * rng.normal(size=len(y)) for seed in (0, 1, 2, 5)}


def test_a_mean_over_more_seeds_gains_nothing_by_it():
    y, users, of_seed = noisy()
    scores = {key: np.mean([of_seed[s] for s in own], axis=0) for key, (_, own) in views(SEEDS).items()}
    found = resampled(scores, y, groups=users, resamples=50)
    assert found.values["three"] > found.values["one"] + 0.05
    assert found.values["three"] == pytest.approx(roc_auc_score(y, scores["three"]))
    told = difference(found, "three", "one", SEEDS)  # one model twice, so nothing is between them
    assert (told["row"], told["value"], told["low"], told["high"]) == ("one", 0, 0, 0)


def test_rows_without_a_seed_in_common_are_not_compared():
    y, users, of_seed = noisy()
    scores = {key: np.mean([of_seed[s] for s in own], axis=0) for key, (_, own) in views(SEEDS).items()}
    found = resampled(scores, y, groups=users, resamples=20)
    assert difference(found, "other", "three", SEEDS) is None
    assert "other" in found.values


def test_a_board_with_a_seed_missing_compares_what_both_have(board, tmp_path, trained):
    out = {"runs": tmp_path / "runs", "measure": False}
    one = leaderboard(board(seeds=1), out=tmp_path / "one.json", **out)
    both = leaderboard(board(seeds=2), out=tmp_path / "both.json", **out)
    shutil.rmtree(tmp_path / "runs" / both["trainings"]["MF"][1])
    less = leaderboard(board(seeds=2), out=tmp_path / "less.json", train=False, **out)
    assert [row["seeds"] for row in less["rows"]] == [[0, 1], [0]]
    told = [record["compared"]["click"]["rows"]["MF"]["baseline"] for record in (one, both, less)]
    assert told[2] == told[0] != told[1]
