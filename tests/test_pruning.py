"""A trained COLD, cut: by number, by budget, and what the folder is afterwards."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prerank import build, pruning
from prerank.cli import app
from prerank.config import ConfigError, Model, load, parse
from prerank.pruning import prune
from prerank.run import Run, open_run, train
from tests.training.conftest import planted_log, settings

COLD = {"name": "cold", "hidden": [16], "cross": [["user", "item"]]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("pruning")
    planted_log(6000, 60, 40).write_parquet(folder / "log.parquet")
    return train(parse(settings(folder, model=COLD)))[0]


def test_the_strongest_fields_of_validation_stay(run: Run, tmp_path: Path) -> None:
    made = prune(run, tmp_path / "small", fields=3, candidates=20)
    rows = made.report["fields"]
    assert [r["gate"] for r in rows] == sorted((r["gate"] for r in rows), reverse=True)
    assert {r["field"] for r in rows} == {"user", "group", "item", "kind", "user*item"}
    assert sum(r["kept"] for r in rows) == 3
    sides = {r["field"]: {"both": {"user", "item"}}.get(r["side"], {r["side"]}) for r in rows}
    weakest = min((r for r in rows if r["kept"]), key=lambda r: r["gate"])["field"]
    others = set().union(*(sides[r["field"]] for r in rows if r["kept"] and r["field"] != weakest))
    stronger = [r["field"] for r in rows[: [r["field"] for r in rows].index(weakest)] if not r["kept"]]
    assert stronger == [] or others != {"user", "item"}  # one that is weaker stays only where a side would have none
    assert made.report["parameters"]["after"] < made.report["parameters"]["before"]
    assert made.report["latency"]["candidates"] == 20


def test_the_folder_is_a_run_and_a_config(run: Run, tmp_path: Path) -> None:
    made = prune(run, tmp_path / "small", fields=3, candidates=20)
    opened = open_run(tmp_path / "small")
    assert sorted(opened.config.model.options["keep"]) == sorted(made.run.model.network.names)
    assert opened.evaluate("validation", resamples=0)["click"].auc == pytest.approx(made.report["validation"]["after"]["click"]["auc"])
    config = load(tmp_path / "small" / "config.yaml", [f"output={tmp_path / 'anew'}"])
    again, _ = train(config)
    assert again.model.network.names == made.run.model.network.names
    with pytest.raises(ConfigError, match="holds a run already"):
        prune(run, tmp_path / "small", fields=3)


def test_a_budget_keeps_as_many_as_it_can(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning.Clock, "__call__", lambda self, model: 100.0 * len(model.network.names))
    assert len(prune(run, tmp_path / "a", budget=350).run.model.network.names) == 3
    assert len(prune(run, tmp_path / "b", budget=400).run.model.network.names) == 4
    with pytest.raises(ConfigError, match="all 5 fields take 500 us, within the budget of 500; there is nothing to leave out"):
        prune(run, tmp_path / "c", budget=500)
    with pytest.raises(ConfigError, match=r"\d fields? still take \d+ us, over the budget of 1; make the layers smaller"):
        prune(run, tmp_path / "c", budget=1)
    assert not (tmp_path / "c").exists()


def test_the_clock_sees_that_less_is_quicker(run: Run) -> None:
    clock = pruning.Clock(run, 2000)
    small, large = (build.model(Model.model_validate({"name": "cold", **options}), run.dataset.schema, run.dataset.sizes)
                    for options in ({"hidden": [4], "keep": ["user", "item"]}, {"hidden": [400, 400]}))  # fmt: skip
    assert 0 < clock(small) < clock(large)


def test_fscd_is_cut_by_its_probabilities_and_needs_no_prior_afterwards(run: Run, tmp_path: Path) -> None:
    raw = settings(run.folder.parent, model={"name": "fscd", "hidden": [16]}, output=str(tmp_path / "fscd"))
    raw["objective"] = [{"loss": "logloss"}, {"loss": "complexity", "weight": 0.01}]
    whole, _ = train(parse(raw))
    made = prune(whole, tmp_path / "small", fields=2, candidates=20)
    assert {r["side"] for r in made.report["fields"] if r["kept"]} == {"user", "item"}
    assert [t.loss for t in load(tmp_path / "small" / "config.yaml").objective] == ["logloss"]
    with pytest.raises(ConfigError, match="model 'fscd': model: must weigh its fields by a gate"):
        prune(made.run, tmp_path / "smaller", fields=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either a number of fields or a latency budget"),
        ({"fields": 2, "budget": 3.0}, "either a number of fields or a latency budget"),
        ({"fields": 5}, "and below the model's 5; got 5"),
        ({"fields": 0}, "fields must be at least"),
        ({"fields": 3, "candidates": 0}, "candidates must be at least 1; got 0"),
    ],
)
def test_what_cannot_be_asked_for(run: Run, tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prune(run, tmp_path / "no", **options)
    assert not (tmp_path / "no").exists()


def test_both_sides_always_have_a_field() -> None:
    strengths = [pruning._Strength(f"u{i}", "user", 1 - i / 10) for i in range(4)] + [pruning._Strength("i", "item", 0.1)]
    for count, expected in itertools.zip_longest(range(4), [["u0", "i"], ["u0", "i"], ["u0", "i"], ["u0", "i", "u1"]]):
        assert pruning._strongest(strengths, count) == expected
    assert pruning._strongest([pruning._Strength("u*i", "both", 0.9), *strengths], 1) == ["u*i"]


def test_the_verb(run: Run, tmp_path: Path) -> None:
    out = CliRunner().invoke(app, ["prune", str(run.folder), "--fields", "3", "--candidates", "20", "--to", str(tmp_path / "small")])
    assert out.exit_code == 0
    assert "not trained again" in out.output
    assert json.loads((tmp_path / "small" / "pruned.json").read_text())["latency"]["budget_us"] is None
    wrong = CliRunner().invoke(app, ["prune", str(run.folder), "--to", str(tmp_path / "no")])
    assert wrong.exit_code == 2
    assert wrong.stderr.count("\n") == 1
