"""The benchmark of stores at a tiny size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.store_size import main


def test_whole_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--ids", "5000", "--width", "8", "--times", "3", "--folder", str(tmp_path), "--out", str(tmp_path / "size.json")])
    memory, lmdb = json.loads((tmp_path / "size.json").read_text())["results"]
    assert memory["bytes_an_id"] == 4 * 8 + 12
    assert memory["gib_at_100,000,000"] == pytest.approx(44e8 / 2**30, abs=0.01)
    assert lmdb["bytes_an_id"] > 16 + 4 * 8
    assert all(r["read"]["wall_ms"] > 0 and r["blend"]["cpu_ms"] > 0 for r in (memory, lmdb))
    assert "lmdb: 5,000 ids of 8" in capsys.readouterr().out
