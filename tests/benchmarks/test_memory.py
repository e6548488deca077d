"""The memory benchmark at a tiny size: the cap is applied, and what runs under it is watched."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import polars as pl
import pytest

from benchmarks.memory import DIM, MB, capped, generate, main, run

HOLD = "import sys, time; held = bytearray(int(sys.argv[1]) << 20); time.sleep(0.3); print('held')"


def test_the_folder_is_as_large_as_asked_and_is_a_log(tmp_path: Path) -> None:
    size, rows = generate(tmp_path, 3 * MB, seed=0)
    assert size == sum(f.stat().st_size for f in tmp_path.iterdir())
    assert 3 * MB <= size < 4 * MB
    frame = pl.read_parquet(tmp_path)
    assert len(frame) == rows
    assert frame["vector"].list.len().unique().to_list() == [DIM]
    assert 0.4 < frame["click"].mean() < 0.6  # type: ignore[operator]


def test_under_the_cap_it_runs_and_is_measured(tmp_path: Path) -> None:
    with capped(200 * MB) as cap:
        found = run([sys.executable, "-c", HOLD, "60"], cap, tmp_path)
    assert (found.status, found.output) == (0, "held\n")
    assert 60 < found.peak_anonymous_mb < 200
    assert found.wall_seconds >= 0.3


def test_over_the_cap_it_fails(tmp_path: Path) -> None:
    with capped(200 * MB) as cap:
        found = run([sys.executable, "-c", HOLD, "300"], cap, tmp_path)
    assert found.status != 0
    assert found.peak_anonymous_mb < 200


def test_whole_run_on_a_small_folder(tmp_path: Path) -> None:
    """Training is really run under the cap; reading so small a folder at once succeeds, which the benchmark must notice."""
    out = tmp_path / "memory.json"
    with pytest.raises(SystemExit) as error:
        main(["--cap-mb", "900", "--times", "0.008", "--folder", str(tmp_path), "--out", str(out)])
    assert error.value.code == 1
    found = json.loads(out.read_text())["results"]
    assert (found["held"], found["real"]) == (True, False)
    assert found["trained"]["peak_anonymous_mb"] < 900
    assert "best epoch 1 of 1" in found["trained"]["output"]
    assert [p.name for p in tmp_path.iterdir()] == ["memory.json"]
