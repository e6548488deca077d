"""The benchmark of what CS3 costs, at a tiny size: every variant is there, beside its plain backbone in the same round."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.synergy_cost import VARIANTS, batches, compared, main


def test_ratios_are_taken_inside_a_round() -> None:
    plain = {"wall": np.array([[1.0], [2.0], [4.0]])}
    found = compared({"plain": plain, "other": {"wall": np.array([[1.5], [3.0], [10.0]])}})
    assert [r["wall_ratio"] for r in found] == [1.0, 1.5]
    assert found[1]["wall_ratio_quietest"] == 1.5
    assert found[1]["wall_ms"] == 3000.0


def test_batches_hold_distinct_rows_once() -> None:
    (batch,) = batches(1, 500, 0)
    assert len(batch.user["user"]) == batch.user_index.max() + 1 < 500
    assert len(np.unique(batch.item["item"])) == len(batch.item["item"])


def test_whole_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cost.json"
    main(["--rounds", "2", "--steps", "1", "--calls", "2", "--batch-size", "32", "--items", "500", "--k", "20", "--out", str(out)])
    found = json.loads(out.read_text())
    for part, which in (("training", "cpu"), ("serving", "wall")):
        rows = found["results"][part]
        assert [(r["backbone"], r["variant"]) for r in rows if r["backbone"] == "dssm"] == [("dssm", v) for v in VARIANTS]
        assert {r["backbone"] for r in rows} == {"dssm", "inttower"}
        assert all(r[f"{which}_ms"] > 0 and r[f"{which}_ratio"] > 0 for r in rows)
    assert "times the plain backbone, bar 1.25" in capsys.readouterr().out
