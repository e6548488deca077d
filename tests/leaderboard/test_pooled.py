"""recall@K and ndcg@K on a board: the values are the runs', the comparison is of the same users."""

from __future__ import annotations

import json

import numpy as np
import yaml

from prerank.leaderboard import tables
from prerank.leaderboard.leaderboard import leaderboard
from prerank.metrics import resampled_means
from prerank.run import open_run

POOL = {"by": "user", "stages": {"impression": "all", "random": 20}, "at": [3, 5]}


def test_values_and_pairs_are_those_of_the_runs(board, tmp_path, trained) -> None:
    path = board()
    for name in ("dssm", "mf"):
        raw = yaml.safe_load((tmp_path / f"{name}.yaml").read_text())
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**raw, "evaluation": POOL}))
    record = leaderboard(path, runs=tmp_path / "runs", out=tmp_path / "board.json", measure=False)
    found = {row["label"]: row["pool"] for row in record["rows"]}
    measured = {}
    for label in ("DSSM", "MF"):
        runs = [open_run(tmp_path / "runs" / folder) for folder in record["trainings"][label]]
        pools = [run.retrieve(run.pool("test")) for run in runs]
        assert set(pools[0].metrics) == {"recall@3", "ndcg@3", "recall@5", "ndcg@5"}
        for name in pools[0].metrics:
            np.testing.assert_allclose(found[label][name], [p.metrics[name].value for p in pools], rtol=1e-9)
        of_users = [p.of_users("ndcg@5") for p in pools]
        of_users[0].values[:] = np.mean([g.values for g in of_users], axis=0)
        measured[label] = of_users[0]
    expected = resampled_means(measured, resamples=1000).difference("MF", "DSSM", 0.99)
    said = record["compared_in_pool"]["ndcg@5"]["MF"]["baseline"]
    np.testing.assert_allclose([said["value"], said["low"], said["high"]], [expected.value, expected.low, expected.high], atol=1e-6)
    table = tables.in_pool(record).markdown()
    assert f"{said['value']:+.4f} ({said['low']:+.4f} .. {said['high']:+.4f})" in table
    assert "lists by user with a positive" in tables.markdown(json.loads(json.dumps(record)))


def test_another_pool_is_another_question(board, tmp_path, trained) -> None:
    path = board()
    for name, many in (("dssm", 20), ("mf", 10)):
        raw = yaml.safe_load((tmp_path / f"{name}.yaml").read_text())
        pool = {**POOL, "stages": {"impression": "all", "random": many}}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**raw, "evaluation": pool}))
    record = leaderboard(path, runs=tmp_path / "runs", out=tmp_path / "board.json", measure=False)
    assert record["compared_in_pool"] == {}
    assert len({row["pool_said"] for row in record["rows"]}) == 2


def test_a_board_without_a_pool_has_no_such_table(board, tmp_path, trained) -> None:
    record = leaderboard(board(), runs=tmp_path / "runs", out=tmp_path / "board.json", measure=False)
    assert record["compared_in_pool"] == {}
    assert not tables.in_pool(record).rows
