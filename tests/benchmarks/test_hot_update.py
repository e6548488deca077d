"""The hot update benchmark in small: nothing fails, nothing is mixed, every state was seen."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.hot_update import measure


def test_nothing_fails_and_nothing_is_mixed(tmp_path: Path) -> None:
    options = argparse.Namespace(rate=30.0, quiet=2.0, flipping=6.0, generations=1, deltas=3, users=300, items=600, candidates=50,
                                 checked=100, seed=0)  # fmt: skip
    found = measure(options, tmp_path)
    assert (found["mixed"], found["flipping"]["failed"], found["quiet"]["failed"]) == (0, 0, 0)
    assert found["recomputed"] >= 90
    assert found["states_seen"] >= 3
    assert found["last"] == [2, 1] or found["last"] == [2, 2]
