"""Labels are dealt among whom they should be."""

from __future__ import annotations

import numpy as np
import polars as pl

from benchmarks.replay_controls import dealt


def test_labels_go_to_other_rows_of_the_log_or_of_the_user() -> None:
    random = np.random.default_rng(0)
    users = random.integers(0, 20, 1000)
    log = pl.DataFrame({"user": users, "row": np.arange(1000), "y": users * 10 + random.integers(0, 2, 1000), "z": np.arange(1000)})
    everywhere, inside = (dealt(log, ["y", "z"], over, "user", 1) for over in ("log", "user"))
    for new in (everywhere, inside):
        assert new["row"].equals(log["row"])
        assert sorted(new["z"]) == list(range(1000))
        assert (log["y"].to_numpy()[new["z"].to_numpy()] == new["y"].to_numpy()).all()  # columns go together
        assert (new["z"] == log["z"]).sum() < 100
    assert (inside["y"] // 10 == inside["user"]).all()
    assert (everywhere["y"] // 10 == everywhere["user"]).mean() < 0.2
