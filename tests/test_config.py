from __future__ import annotations

from pathlib import Path

import pytest

from prerank.config import Config, ConfigError, dump, load, parse

ABOUT_RUNS = ("leaderboards", "ablations", "tune")  # files of other kinds, that name these
CONFIGS = sorted(p for p in (Path(__file__).parent.parent / "configs").rglob("*.yaml") if p.parent.name not in ABOUT_RUNS)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"trainin": {}}, "config: unknown key 'trainin'; did you mean 'training'?"),
        ({"training": {"optimizer": {"lrr": 1}}}, "config: unknown key 'training.optimizer.lrr'; did you mean 'lr'?"),
        ({"data": {"labels": {"a": {"rul": "x"}}}}, "config: unknown key 'data.labels.a.rul'; did you mean 'rule'?"),
        (
            {"data": {"features": [{"name": "a", "side": "user", "knd": 1}]}},
            "config: unknown key 'data.features.0.knd'; did you mean 'kind'?",
        ),
        (
            {"data": {"labels": {"a": {"rule": "x", "column": "y"}}}},
            "exactly one of rule, column, weighted, levels, ecpm; got rule, column",
        ),
        ({"data": {"split": {"kind": "random", "test": "2022-01-01"}}}, "split.test: a moment belongs to kind time"),
        ({"data": {"split": {"test": 1.5}}}, "split.test: a fraction must be in [0, 1); got 1.5"),
        ({"data": {"split": {"kind": "column"}}}, "split.column: kind column needs it"),
        ({"training": {"epochs": 0}}, "config: training.epochs: Input should be greater than or equal to 1; got 0"),
        (
            {"data": {"features": [{"name": "a", "side": "usr"}]}},
            "data.features.0.side: Input should be 'user', 'item' or 'context'; got 'usr'",
        ),
    ],
)
def test_what_is_wrong_is_named(raw: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(raw)
    assert message in str(error.value)


def test_every_problem_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        parse({"modle": {}, "training": {"epochs": -1, "patience": 0}})
    assert len(str(error.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("training.seed=3", ("training", "seed"), 3),
        ("training.optimizer.lr=1e-2", ("training", "optimizer", "lr"), 0.01),
        ("output=runs/x", ("output",), "runs/x"),
        ("objective.0.weight=0.5", ("objective", 0, "weight"), 0.5),
    ],
)
def test_overrides(override: str, path: tuple[str | int, ...], value: object) -> None:
    found: object = parse({"objective": [{"loss": "logloss"}]}, [override])
    for part in path:
        found = found[part] if isinstance(part, int) else getattr(found, part)  # type: ignore[index]
    assert found == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "--set 'seed': must look like key.path=value"),
        ("training.sed=1", "unknown key 'training.sed'; did you mean 'seed'?"),
        ("objective.3.weight=1", "'3' must be an index below 1"),
        ("output.x=1", "'x' lies inside a plain value"),
        ("output=[", "the value is not valid YAML"),
    ],
)
def test_bad_overrides(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse({"objective": [{"loss": "logloss"}], "output": "x"}, [override])
    assert message in str(error.value)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_config_of_the_tables_is_valid_and_goes_round(path: Path, tmp_path: Path) -> None:
    config = load(path)
    (tmp_path / "again.yaml").write_text(dump(config))
    assert load(tmp_path / "again.yaml") == config
    assert config.output == f"runs/{path.parent.name}-{path.stem}"
    assert ("official" in path.stem) == (config.leaky is not None)


def test_options_without_a_recipe() -> None:
    with pytest.raises(ConfigError, match="data: options belong to a recipe, and there is none; got users"):
        parse({"data": {"options": {"users": 5}}})


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "a.yaml").write_text("a: [1\nb: 2")
    with pytest.raises(ConfigError, match=r"not valid YAML.*\(line 2"):
        load(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="must be a mapping of keys, got list"):
        load(tmp_path / "b.yaml")
    (tmp_path / "c.yaml").write_text("")
    assert load(tmp_path / "c.yaml") == Config()
