"""docs/boards.py on made-up records: tables of what is measured, pictures of it, nothing of what is not."""

from __future__ import annotations

import json

import pytest

from docs import boards, tables


def row(label, aucs, kind="two-tower", leaky=None, **changes):
    times = {str(k): {"p50_ms": k / 5000, "p99_ms": k / 4000, "calls": 9} for k in (100, 1000, 10000)}
    n = len(aucs)
    return {"label": label, "kind": kind, "config": "x.yaml", "set": {}, "model": "mf", "leaky": leaky, "status": "finished", "why": [],
            "seeds": list(range(n)), "test": {"like": {"auc": aucs, "logloss": [0.3] * n, "gauc": [0.8] * n}}, "parameters": 1234567,
            "user_tower_parameters": 12, "rows_per_second": [10.0] * n, "rows_per_cpu_second": [1000.0] * n, "rows": [60000] * n,
            "seconds": [120.0] * n, "latency": times, **changes}  # fmt: skip


def write(folder, name, rows):
    record = {"title": name.upper(), "protocol": "a protocol", "leaky": None, "baseline": rows[0]["label"], "objectives": ["like"],
              "candidates": [1000, 10000], "command": "prerank leaderboard x.yaml", "machine": {"cores": 2, "cpu": "a CPU"},
              "versions": {"torch": "9.9"},
              "bars": [{"label": "theirs", "auc": 0.91, "logloss": None, "objective": None, "source": "them"}],
              "rows": rows, "compared": {}}  # fmt: skip
    (folder / f"leaderboard-{name}.json").write_text(json.dumps(record))


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(boards, "IMAGES", tmp_path / "images")
    return tmp_path


def test_nothing_measured_gives_nothing(results):
    assert {make() for make in boards.TABLES.values()} == {""}
    assert boards.draw() == []


def test_every_board_has_its_tables_and_pictures(results):
    for name in boards.HERE:
        rows = [row("DSSM", [0.88, 0.9], set={"model.head_width": 8}),
                row("IntTower", [0.9, 0.92], leaky="reads the answers", set={"model.head_width": 16}),
                row("FM", [0.91], kind="ranker", set={"model.head_width": 32}, latency=None)]  # fmt: skip
        write(results, name, rows)
    drawn = {path.name: path.read_bytes()[:4] for path in boards.draw()}
    assert set(drawn.values()) == {b"\x89PNG"}
    assert {"ml1m-honest-pareto.png", "ml1m-honest-latency.png", "kuairand.png", "ml1m-ablation.png", "ml1m-head-width.png"} <= set(drawn)
    text = boards.TABLES["leaderboard-ml1m-honest"]()
    (dssm,) = (line for line in text.splitlines() if line.startswith("| DSSM") and "±" in line)
    assert "0.8900 ± 0.0141" in dssm
    assert "IntTower **LEAKY**" in text
    assert "0.200 / 0.250" in text  # p50 / p99 at 1,000
    assert "100 * " not in text
    assert f"{100 * (0.41 / 0.39 - 1):.2f}" in text  # RelaImpr of FM over DSSM


def test_data_sets_that_are_not_here_have_no_numbers_of_ours(results):
    away = {"status": "not run: data not available here", "latency": None}
    write(results, "amazon", [row("DSSM", [], **away)])
    text = boards.elsewhere()
    assert "not run: data not available here" in text
    assert "0.9100" in text
    assert "them" in text
