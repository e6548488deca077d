"""The benchmark of stores with a past at a tiny size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.store_history import main


def test_whole_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--ids", "500", "--width", "4", "--batches", "3", "--out", str(tmp_path / "history.json")])
    rows = json.loads((tmp_path / "history.json").read_text())["results"]
    assert {(r["store"], r["way"]) for r in rows} >= {(s, w) for s in ("memory", "lmdb") for w in ("plain", "once", "history")}
    assert all(r["blend"]["wall_ms"] > 0 and r["read"]["cpu_ms"] > 0 for r in rows)
    assert all(("read_90s_ago" in r) == (r["way"] == "history") for r in rows)
    assert "lmdb, history: blend" in capsys.readouterr().out
