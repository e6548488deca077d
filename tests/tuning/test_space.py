from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from prerank.config import ConfigError, parse
from prerank.tuning import Tune, load
from prerank.tuning.space import Range, current, varied

BASE: dict[str, Any] = {
    "data": {"log": "log.csv", "labels": {"click": {"column": "click"}},
             "features": [{"name": "user_id", "side": "user"}, {"name": "item_id", "side": "item"}]},
    "model": {"name": "inttower", "hidden": [32, 16]},
    "training": {"optimizer": {"lr": 0.01}},
}  # fmt: skip


def search(tmp_path: Path, **raw: Any) -> Tune:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(BASE))
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump({"run": str(tmp_path / "run.yaml"), **raw}))
    return load(tmp_path / "tune.yaml")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"space": {"model.heads": {"choices": [1, 2]}}, "trails": 3}, r"unknown key 'trails'; did you mean 'trials'\?"),
        ({"space": {"model.heads": {"choice": [1, 2]}}}, r"unknown key 'space.model.heads.choice'; did you mean 'choices'\?"),
        ({"space": {}}, "space: Dictionary should have at least 1 item"),
        ({}, "space: Field required"),
        ({"space": {"x": {"log": [1e-3, 1e-4]}}}, r"space.x: log: must go from a lower to a higher bound; got \[0\.001, 0\.0001\]"),
        ({"space": {"x": {"log": [0, 1]}}}, r"space.x: log: bounds must be positive; got \[0\.0, 1\.0\]"),
        ({"space": {"x": {"log": [1, 2], "choices": [1, 2]}}}, "exactly one of log, uniform, integer, choices; got log, choices"),
        ({"space": {"x": {}}}, "got none"),
        ({"space": {"x": {"choices": [1]}}}, r"choices: must be at least 2; got \[1\]"),
        ({"space": {"x": {"choices": [1, 2]}}, "latency": {"candidates": 10}}, "latency.milliseconds: Field required"),
    ],
)
def test_a_wrong_file_says_what_is_right(tmp_path: Path, raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search(tmp_path, **raw)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"model.heds": {"choices": [1, 2]}}, r"tune.space 'model.heds' = 1: model 'inttower': unknown option 'heds'; did you mean"),
        ({"training.lr": {"log": [1e-4, 1e-3]}}, r"tune.space 'training.lr' = 0.0001: settings: unknown key 'training.lr'"),
        ({"model.heads": {"integer": [0, 4]}}, "tune.space 'model.heads' = 0: model 'inttower': heads: must be at least 1; got 0"),
        ({"model.heads": {"uniform": [1, 2]}}, "tune.space 'model.heads' = 1.0: model 'inttower': option 'heads': Input should be a valid"),
        ({"objective.3.weight": {"uniform": [0, 1]}}, "tune.space 'objective.3.weight' = 0.0"),
        ({"data.split.seed": {"choices": [1, 2]}}, "tune.space 'data.split.seed': decides what is measured, so it must be the same"),
        ({"training.monitor": {"choices": ["auc", "gauc"]}}, "decides what is measured"),
    ],
)
def test_every_end_of_a_range_must_build(tmp_path: Path, space: dict[str, Any], message: str) -> None:
    wanted = search(tmp_path, space=space)
    with pytest.raises(ConfigError, match=message):
        wanted.check(wanted.base())


def test_what_the_run_has_already_is_known_with_its_defaults() -> None:
    base = parse(BASE)
    assert current(base, "training.optimizer.lr") == 0.01
    assert current(base, "training.batch_size") == 2048
    assert current(base, "model.hidden") == [32, 16]
    assert current(base, "model.heads") == 2  # the recipe's default
    assert current(base, "objective.0.weight") == 1.0
    assert current(base, "model.nothing") is None


def test_varied_settings_are_the_run_with_some_changed() -> None:
    base = parse(BASE)
    found = varied(base, {"model.hidden": [8], "training.optimizer.lr": 1e-5, "objective": [{"loss": "logloss", "weight": 2.0}]})
    assert found.model.options["hidden"] == [8]
    assert found.training.optimizer.lr == 1e-5
    assert found.objective[0].weight == 2.0
    assert found.data == base.data


@pytest.mark.parametrize(
    ("raw", "value", "inside"),
    [({"log": [1e-4, 1e-2]}, 1e-3, True), ({"log": [1e-4, 1e-2]}, 1.0, False), ({"integer": [1, 4]}, 4, True),
     ({"integer": [1, 4]}, 2.5, False), ({"choices": [[8], [16, 8]]}, [16, 8], True), ({"choices": ["a", None]}, "b", False),
     ({"uniform": [0, 1]}, None, False), ({"uniform": [0, 1]}, True, False)],
)  # fmt: skip
def test_a_value_and_its_parameter(raw: dict[str, Any], value: Any, inside: bool) -> None:
    values = Range.model_validate(raw)
    parameter = values.parameter(value)
    assert (parameter is not None) == inside
    assert not inside or values.decoded(parameter) == value
