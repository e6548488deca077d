"""docs/tables.py on made-up results: means by the formula, leaky rows marked, what is not measured left out."""

import json
import re
import statistics

import pytest

from docs import pictures, tables
from prerank.towers import TOWERS

MACHINE = {"machine": {"cpu": "a CPU", "cores": 2, "load": 0.5}, "versions": {"torch": "9.9"}}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)

    def write(name, **record):
        (tmp_path / f"{name}.json").write_text(json.dumps({**MACHINE, "command": f"python -m benchmarks.{name}", **record}))

    return write


def run(auc, label="like", leaky=None):
    return {"test": {label: {"auc": auc, "logloss": 0.3, "gauc": 0.8}}, "leaky": leaky, "parameters": 1234, "name": "x"}


def test_nothing_measured_gives_nothing(results):
    made = {name: make() for name, make in tables.TABLES.items() if name != "models"}
    assert set(made.values()) == {""}
    assert tables.models().count("\n") == 1 + len(tables.PAPERS)  # the models are there, their numbers are not
    assert "prerank leaderboard" not in tables.models()


def test_every_tower_is_in_the_table_of_models():
    assert {name.strip("`") for name, *_ in tables.PAPERS} == set(TOWERS)
    assert sum("interpretation: the source is not public" in paper for _, paper, *_ in tables.PAPERS) == 2


def test_quality_is_mean_and_deviation_over_seeds(results):
    values = [0.9011, 0.9023, 0.9019]
    mf = {f"configs/ml1m/honest-mf.yaml#{seed}": run(v) for seed, v in enumerate(values)}
    leaky = {"configs/ml1m/official-inttower.yaml#1023": run(0.89, leaky="reads the answers")}
    results("accuracy", results={**mf, **leaky})
    expected = f"{statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f}"
    for name in ("overview", "ml1m-honest"):
        assert expected in tables.TABLES[name]()
    (row,) = (line for line in tables.overview().splitlines() if "official" in line)
    assert "LEAKY" in row
    assert "LEAKY: reads the answers" in tables.overview()
    assert "LEAKY" not in tables.TABLES["ml1m-honest"]()
    assert "0.8974 / 0.3128" in tables.published()
    assert "`python -m benchmarks.accuracy --only ml1m/honest-mf.yaml`" in tables.TABLES["ml1m-honest"]()


def test_models_have_the_honest_board_s_rows(results):
    values, test = [0.9011, 0.9023, 0.9019], lambda auc: {"like": {"auc": auc}}
    results("leaderboard-ml1m-honest", rows=[
        {"label": "MF", "model": "mf", "config": "configs/ml1m/honest-mf.yaml", "seeds": [0, 1, 2], "test": test(values)},
        {"label": "DSSM", "model": "dssm", "config": "configs/ml1m/honest-dssm.yaml", "seeds": [0], "test": test([0.8921])},
        {"label": "DSSM + history", "model": "dssm", "config": "configs/ml1m/dssm-history.yaml", "seeds": [0], "test": test([0.9079])},
        {"label": "DAT", "model": "dat", "config": "configs/ml1m/honest-dat.yaml", "seeds": [], "test": {}},
    ])  # fmt: skip
    mf, dssm, dat = (next(line for line in tables.models().splitlines() if f"| `{name}` |" in line) for name in ("mf", "dssm", "dat"))
    assert f"| {statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f} |" in mf
    assert "--only honest-mf.yaml`" in mf
    assert "| 0.8921<br>0.9079 (DSSM + history) |" in dssm
    assert dat.endswith("|  |  |")


def test_latency_in_milliseconds(results):
    cells = [
        {"model": m, "dtype": d, "k": k, "path": p, "p50_us": 1234.0, "p99_us": 5678.0, "cpu_p50_us": 999.0}
        for m in ("inttower", "dssm")
        for d in ("fp32", "int8")
        for k in (100, 1000)
        for p in ("ours", "top 100", "numpy")
    ]
    results("scoring_latency", items=1000, results=cells)
    assert "1.234 / 5.678 (0.999)" in tables.scoring_short()
    lines = [line for line in tables.scoring().splitlines() if "top 100" in line]
    assert len(lines) == 1  # the parts of one model, exact items
    assert "2 cores of a CPU, load 0.5, torch 9.9" in tables.scoring()


def test_training_and_memory(results):
    against = [{"baseline": "plain", "ratio": 3.456, "auc_difference": 0.01}]
    rows = [{"contender": "our DSSM", "batch_size": 2048, "rows_per_cpu_second": 50000, "auc": 0.86, "against": against}]
    results("training_speed", rechub="torch-rechub", results=rows)
    assert "3.46 x plain" in tables.training()
    one = {"status": 0, "peak_anonymous_mb": 321.0, "peak_total_mb": 400.0, "wall_seconds": 9.0, "cpu_seconds": 8.0}
    results(
        "memory", results={"folder_mb": 500, "rows": 10, "cap_mb": 100, "cap": "a cgroup", "trained": one, "control": {**one, "status": 1}}
    )
    assert re.search(r"\| +321 \|", tables.memory())
    assert "failed with status 1" in tables.memory()


def test_pictures_are_drawn_from_results(results, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "IMAGES", tmp_path / "images")
    assert pictures.draw() == []
    results("accuracy", results={f"configs/ml1m/honest-mf.yaml#{seed}": run(v) for seed, v in enumerate((0.9, 0.91))})
    (drawn,) = pictures.draw()
    assert drawn.read_bytes()[:4] == b"\x89PNG"
