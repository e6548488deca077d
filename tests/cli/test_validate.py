import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from prerank.cli import app

run = CliRunner().invoke
N = 3000


def frames():
    rng = np.random.default_rng(11)
    user, item = rng.integers(0, 100, N), rng.integers(0, 60, N)
    log = pl.DataFrame(
        {
            "user_id": user,
            "item_id": item,
            "ts": 1_650_000_000 + np.arange(N),
            "click": (rng.random(N) < 0.3).astype(int),
            "buy": (rng.random(N) < 0.1).astype(int),
            "hour": rng.integers(0, 24, N),
            "load": rng.random(N),
        }
    )
    users = pl.DataFrame({"user_id": np.arange(100), "age": rng.integers(18, 80, 100)})
    items = pl.DataFrame({"item_id": np.arange(60), "price": rng.random(60), "genres": ["a|b", "b"] * 30, "emb": ["1|2|3"] * 60})
    return {"log": log, "users": users, "items": items}


def config():
    return {
        "data": {
            "log": "log.csv",
            "users": "users.csv",
            "items": "items.csv",
            "time": "ts",
            "labels": {"click": {"column": "click"}},
            "split": {"kind": "time", "validation": 0.1, "test": 0.2},
            "features": [
                {"name": "user_id", "side": "user"},
                {"name": "age", "side": "user", "kind": "numeric"},
                {"name": "hour", "side": "context"},
                {"name": "load", "side": "context", "kind": "numeric", "bins": 8},
                {"name": "item_id", "side": "item"},
                {"name": "price", "side": "item", "kind": "numeric"},
                {"name": "genres", "side": "item", "kind": "multi"},
                {"name": "emb", "side": "item", "kind": "vector", "dim": 3},
            ],
        },
        "model": {"name": "dssm"},
    }


@pytest.fixture
def check(tmp_path, monkeypatch):
    """check(config, tables) -> (exit status, errors, warnings, stdout)"""
    monkeypatch.chdir(tmp_path)

    def checked(settings, tables, *arguments):
        for name, frame in tables.items():
            frame.write_csv(f"{name}.csv")
        with open("c.yaml", "w") as file:
            yaml.safe_dump(settings, file)
        out = run(app, ["validate", "c.yaml", *arguments])
        assert out.exception is None or isinstance(out.exception, SystemExit), out.exception
        lines = out.stderr.splitlines()
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        warnings = [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")]
        assert len(errors) + len(warnings) == len(lines)
        return out.exit_code, errors[:-1], warnings, out.stdout

    return checked


def text(frame, column, row, value):
    """The frame with one cell replaced by any text."""
    values = frame[column].cast(pl.String).to_list()
    values[row] = value
    return frame.with_columns(pl.Series(column, values))


def test_a_good_config(check):
    code, errors, warnings, out = check(config(), frames())
    positive = frames()["log"]["click"].mean()
    assert (code, errors, warnings) == (0, [], [])
    facts = "3,000 rows, 100 users, 60 items; split train 2,100, validation 300, test 600"
    assert out == f"c.yaml: ok; {facts}; label click: {positive:.1%} positive\n"


def test_every_problem_at_once(check):
    settings, tables = config(), frames()
    settings["nam"] = "x"
    settings["training"] = {"epochs": 0, "optimizer": {"lr": "fast"}}
    settings["model"] = {"name": "dsm"}
    settings["objective"] = [{"loss": "logloss", "wieght": 2}, {"loss": "nope"}]
    settings["data"]["labels"]["never"] = {"rule": "click > 5"}
    settings["data"]["labels"]["gone"] = {"column": "gone"}
    settings["data"]["features"] += [
        {"name": "sex", "side": "user"},
        {"name": "oops", "side": "context", "column": "click"},
        {"name": "wide", "side": "item", "column": "price", "widht": 8},
    ]
    tables["log"] = text(text(tables["log"], "load", 40, "heavy"), "user_id", 99, None)
    tables["users"] = text(tables["users"], "age", 6, "n/a")
    tables["items"] = text(text(tables["items"], "item_id", 5, "4"), "emb", 2, "1|2")
    code, errors, _, out = check(settings, tables)
    assert (code, out) == (2, "")
    expected = [
        "c.yaml: unknown key 'nam'; did you mean 'name'?",
        "c.yaml: unknown key 'data.features.10.widht'; did you mean 'width'?",
        "c.yaml: training.epochs: Input should be greater than or equal to 1; got 0",
        "c.yaml: training.optimizer.lr: Input should be a valid number, unable to parse string as a number; got 'fast'",
        "unknown model 'dsm'; did you mean 'dssm'?",
        "feature 'sex': users and log have no column 'sex'",
        "label 'gone': log 'log.csv' has no column 'gone'",
        "label 'never': all 2100 train rows are 0, a label needs two classes",
        "feature 'oops': reads column 'click', which label 'click' is made of; the outcome decides it",
        "feature 'load': 1 value is not a number, first at row 41 of log.csv: 'heavy'",
        "user id 'user_id': must not be missing, 1 value is, first at row 100 of log.csv",
        "feature 'age': 1 value is not a number, first at row 7 of users.csv: 'n/a'",
        "feature 'emb': a vector must have 3 numbers, row 3 of items.csv has 2",
        "items 'items.csv', column 'item_id': must hold each id once, 4 occurs 2 times",
    ]
    for line in expected:
        assert any(e.startswith(line) for e in errors), (line, errors)
    assert any("wieght" in e for e in errors)
    assert len(errors) == len(set(errors)) == len(expected) + 1


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda s: s["data"].update(log="gone.csv"), "log 'gone.csv': no such file"),
        (lambda s: s["data"].update(log=None), "data.log: a log is needed"),
        (lambda s: s["data"].update(users="gone.csv"), "users 'gone.csv': no such file"),
        (lambda s: s["data"].update(time="tz"), "data.time: log 'log.csv' has no column 'tz'; valid: "),
        (lambda s: s["data"].update(labels={}), "data.labels: at least one label is needed"),
        (lambda s: s["data"].update(drop="clik = 1"), "data.drop: log 'log.csv' has no column 'clik'; did you mean 'click'?"),
        (lambda s: s["data"].update(drop="click >= 0"), "log 'log.csv': no row is left"),
        (
            lambda s: s["data"].update(split={"kind": "time", "validation": "2022-04-15", "test": "2020-01-01"}),
            "split: validation (2022-04-15) must begin before",
        ),
        (
            lambda s: s["data"].update(split={"kind": "time", "validation": "2020-01-01", "test": "2022-04-15"}),
            "split: no row is left to train on",
        ),
        (
            lambda s: s["data"].update(split={"kind": "random", "validation": 0.5, "test": 0.5}),
            "split: validation 0.5 and test 0.5 leave no rows",
        ),
        (lambda s: s["data"].update(recipe="movielns"), "unknown recipe 'movielns'; did you mean 'movielens'?"),
        (lambda s: s["data"]["features"].append({"name": "age", "side": "item"}), "data.features: feature 'age': names must be unique"),
        (
            lambda s: s["data"].update(derive=[{"name": "m", "kind": "target_mean", "by": "user_id"}]),
            "derived column 'm': target_mean needs a label",
        ),
        (lambda s: s["model"].update(name="inttower", hedas=2), "model 'inttower': unknown option 'hedas'; did you mean 'heads'?"),
        (lambda s: s.update(objective=[]), "objective: needs at least one term"),
    ],
)
def test_one_thing_wrong(check, change, line):
    settings = config()
    change(settings)
    code, errors, _, _ = check(settings, frames())
    assert code == 2
    assert len(errors) == 1, errors
    assert errors[0].startswith(line)


@pytest.mark.parametrize("bad", ["not: [closed", "- a list", "\x00"])
def test_a_file_that_is_no_config(tmp_path, bad):
    (tmp_path / "c.yaml").write_text(bad)
    out = run(app, ["validate", str(tmp_path / "c.yaml")])
    assert out.exit_code == 2
    assert out.stderr.startswith(f"error: config '{tmp_path / 'c.yaml'}': ")
    assert out.stderr.count("\n") == 1


def test_a_label_of_one_class_in_train_alone(check):
    """In time order the only positives come last: train sees one class."""
    settings, tables = config(), frames()
    tables["log"] = tables["log"].with_columns(pl.Series("click", [0] * 2900 + [1] * 100))
    code, errors, _, _ = check(settings, tables)
    assert (code, errors) == (2, ["label 'click': all 2100 train rows are 0, a label needs two classes"])


@pytest.mark.parametrize(
    ("table", "name", "values", "feature"),
    [
        ("log", "noisy", lambda f: f["log"]["click"] + np.random.default_rng(0).random(N), {"side": "context", "kind": "numeric"}),
        ("log", "code", lambda f: f["log"]["click"].replace_strict({0: "x", 1: "y"}), {"side": "context"}),
        ("users", "sum", lambda f: np.arange(100) % 2, {"side": "user"}),
    ],
)
def test_a_column_that_tells_the_label_alone_is_a_warning(check, table, name, values, feature):
    settings, tables = config(), frames()
    if table == "users":  # the label is made to follow the user
        tables["log"] = tables["log"].with_columns(click=pl.col("user_id") % 2)
    tables[table] = tables[table].with_columns(pl.Series(name, values(tables)))
    settings["data"]["features"].append({"name": name, **feature})
    code, errors, warnings, out = check(settings, tables)
    assert (code, errors) == (0, [])
    told = [
        w
        for w in warnings
        if w.startswith(f"feature '{name}': column '{name}' alone reaches AUC ") and w.endswith("a leak until proved otherwise")
    ]
    assert len(told) == 1
    assert "ok, " in out


def test_a_column_named_like_an_outcome_is_a_warning(check):
    settings = config()
    settings["data"]["features"].append({"name": "buy", "side": "context"})
    code, _, warnings, _ = check(settings, frames())
    assert (code, warnings) == (0, ["feature 'buy': column 'buy' sounds like an outcome of the impression; is it known before?"])


@pytest.mark.parametrize(("field", "bins"), [(True, None), (True, 8), (False, None)])
def test_a_mean_label_beside_its_key_is_a_warning(check, field, bins):
    settings = config()
    settings["data"]["derive"] = [{"name": "m", "kind": "target_mean", "by": "item_id", "label": "click", "how": "leave_one_out"}]
    features = [f for f in settings["data"]["features"] if f["name"] != "item_id"]
    made = {"name": "m", "side": "item", "kind": "numeric", **({"bins": bins} if bins else {})}
    settings["data"]["features"] = [*features, {"name": "item_id", "side": "item", "field": field}, made]
    code, errors, warnings, _ = check(settings, frames())
    assert (code, errors, len(warnings)) == (0, [], int(field))
    assert not field or warnings[0].startswith("feature 'm': a model that also reads 'item_id' can tell a train row's label from it")


def test_entities_without_features_are_a_warning(check):
    tables = frames()
    tables["users"] = tables["users"].head(50)
    _, _, warnings, _ = check(config(), tables)
    assert warnings == ["users 'users.csv': 50 of the log's 100 users are not in it; their features are missing"]


def test_a_part_without_rows_is_a_warning(check):
    """Moments behind the log's end: every row would be for training, and no epoch could be chosen."""
    settings = config()
    settings["data"]["split"] |= {"validation": "2031-01-01", "test": "2032-01-01"}
    code, errors, warnings, _ = check(settings, frames())
    assert (code, errors) == (0, [])
    asked = (("validation", "2031-01-01"), ("test", "2032-01-01"))
    assert warnings[:2] == [f"split: no row is for {name}, though {moment} was asked for" for name, moment in asked]


def test_overrides_are_checked_too(check):
    code, errors, _, _ = check(config(), frames(), "--set", "model.name=nope", "--set", "training.epochs=-1")
    assert code == 2
    assert [e.split(";")[0] for e in errors] == [
        "c.yaml: training.epochs: Input should be greater than or equal to 1",
        "unknown model 'nope'",
    ]


def test_a_derived_history_is_no_problem(check):
    settings = config()
    settings["data"]["derive"] = [{"name": "seen", "kind": "history", "by": "user_id", "of": "item_id", "label": "click", "max_length": 5}]
    settings["data"]["features"].append({"name": "seen", "side": "user", "kind": "sequence", "share": "item_id"})
    assert check(settings, frames())[:3] == (0, [], [])


def test_in_a_real_process(tmp_path):
    for name, frame in frames().items():
        frame.write_csv(tmp_path / f"{name}.csv")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config()))
    done = subprocess.run([sys.executable, "-m", "prerank", "validate", "c.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("c.yaml: ok; 3,000 rows")


def staged():
    """The small log as a cascade's: every third row is an impression, the others have no label."""
    tables, settings = frames(), config()
    stage = np.where(np.arange(N) % 3 == 0, "impression", "recall")
    log = tables["log"].with_columns(stage=pl.Series(stage), bid=pl.lit(1.0), score=pl.lit(0.5))
    tables["log"] = log.with_columns(click=pl.when(pl.col("stage") == "impression").then("click"))
    settings["data"] |= {"stage": {"column": "stage"}, "bid": "bid", "teacher": {"column": "score"}}
    return settings, tables


def test_a_cascades_log_is_summed_up_by_stage(check):
    status, errors, _, out = check(*staged())
    assert (status, errors) == (0, [])
    assert "stages impression 1,000, recall 2,000" in out


def test_every_fault_of_a_cascades_log_is_named(check):
    settings, tables = staged()
    log = tables["log"].with_columns(stage=pl.lit("shown"), bid=pl.lit(-1.0), score=pl.lit("high"))
    status, errors, _, _ = check(settings, {**tables, "log": log})
    assert status == 2
    said = "\n".join(errors)
    for part in ("stage 'stage': unknown value, first at row 1", "bid 'bid': must be 0 or more", "teacher, column 'score': 3000 values"):
        assert part in said
