"""docs/ablations.py: nothing measured gives nothing; a record gives its tables and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from docs import ablations, tables


def row(variant: str, auc: float, seeds: int = 2, **change: Any) -> dict[str, Any]:
    metrics = {"y": {"auc": [auc] * seeds, "logloss": [0.5] * seeds, "gauc": [0.6] * seeds}}
    return {"backbone": "DSSM", "variant": variant, "config": "x.yaml", "set": {}, "model": "dssm", "seeds": list(range(seeds)), "why": [],
            "prequential": metrics, "frozen": metrics, "before": metrics, "noisy": {"y": [auc - 0.01] * seeds},
            "cpu_seconds": [10.0] * seeds, "seconds": [10.0] * seeds, "rows": 100, "parameters": 1000, "memory_bytes": 0, "flops": 500,
            "latency": {"1000": {"p50_ms": 0.1, "p99_ms": 0.2, "calls": 9}}, **change}  # fmt: skip


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(ablations, "IMAGES", tmp_path / "images")
    return tmp_path


def test_nothing_measured_gives_nothing(results: Path) -> None:
    assert {make() for make in ablations.TABLES.values()} == {""}
    assert ablations.draw() == []


def test_a_record_gives_its_tables_and_pictures(results: Path) -> None:
    gain = {"row": "plain", "value": 0.0123, "low": 0.01, "high": 0.02, "p": 0.01}
    told = {"plain": {"value": 0.7}, "cms": {"value": 0.71, "plain": gain}, "ranking model": {"value": 0.72, "plain": gain}}
    protocol = {
        "auc": {"y": told},
        "tau": {"plain": {"value": 0.5}},
        "slices": {f"cold {s}": {"rows": 9, "auc": told} for s in ("users", "items")},
    }
    taught = {"synergy": {"cms": {"ranker": {"name": "dcnv2"}}}}
    rows = [row("plain", 0.7), row("cms", 0.71, flops=550, memory_bytes=2_000_000, set=taught, cpu_seconds=[30.0] * 2),
            row("ranking model", 0.72, flops=None, cpu_seconds=[12.0] * 2)]  # fmt: skip
    record = {"ablation": "cs3-kuairand", "title": "Toy", "protocol": "one pass", "noise": 0.1, "cold": 3,
              "command": "prerank ablate x.yaml", "machine": {"cores": 2, "cpu": "a CPU"},
              "versions": {"torch": "9.9"}, "objectives": ["y"], "rows": rows,
              "compared": {"DSSM": {"prequential": protocol, "frozen": protocol}}}  # fmt: skip
    (results / "ablation-cs3-kuairand.json").write_text(json.dumps(record))
    made = ablations.TABLES["ablation-cs3-kuairand"]()
    for said in ("+0.0123 (+0.0100 .. +0.0200)", "0.7100 ± 0.0000", "one pass", "0.7100, +0.0123", "0.0100 ± 0.0000"):
        assert said in made
    cost = next(line for line in ablations.TABLES["ablation-cost"]().splitlines() if "| cms" in line)
    cells = [cell.strip() for cell in cost.split("|")[3:-1]]
    assert cells == ["1,000", "0", "2.0", "10.0", "0.100", "1.00", "30.0", "18.0", "1.80"]  # 30 - 12 of the ranking model, of 10
    assert [p.name for p in ablations.draw()] == ["ablation-cs3-kuairand-dssm.png", "ablation-cs3-kuairand-dssm-gains.png"]
