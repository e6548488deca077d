import importlib
from fnmatch import fnmatch

import numpy as np
import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from prerank import build
from prerank.cli import app
from prerank.config import load

module = importlib.import_module("prerank.cli.init")
run = CliRunner().invoke
N = 4000


def world(folder):
    """A log with users and items tables, as a stranger might have them."""
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 150, N), rng.integers(0, 80, N)
    click = (rng.random(N) < 0.2 + 0.3 * (user % 2)).astype(int)
    log = pl.DataFrame(
        {
            "uid": user,
            "video_id": item,
            "ts": 1_700_000_000_000 + np.arange(N) * 1000,
            "tab": rng.integers(0, 4, N),
            "city": pl.Series(user % 7).cast(pl.String),  # says the same of a user every time
            "length": (item * 37 + 11) % 100,  # and this of an item
            "is_click": click,
            "play_time_ms": click * rng.integers(1, 9999, N),
            "is_like": (rng.random(N) < 0.1).astype(int),
            "secret": click * 10 + rng.random(N),
            "hist": ["|".join(map(str, rng.integers(0, 80, 3))) for _ in range(N)],
            "constant": [1] * N,
            "position": rng.integers(0, 10, N),
        }
    )
    users = pl.DataFrame({"uid": np.arange(150), "age": rng.integers(0, 9000, 150), "name": [f"somebody {i}" for i in range(150)]})
    items = pl.DataFrame({"video_id": np.arange(80), "genres": ["A|B", "B"] * 40, "price": rng.random(80)})
    for name, frame in (("log", log), ("users", users), ("items", items)):
        frame.write_csv(folder / f"{name}.csv")
        frame.write_parquet(folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return world(tmp_path_factory.mktemp("world"))


def init(files, out, *more, kind="csv", tables=True):
    names = [str(files / f"log.{kind}")]
    if tables:
        names += ["--users", str(files / f"users.{kind}"), "--items", str(files / f"items.{kind}")]
    return run(app, ["init", *names, "-o", str(out), *more])


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_guess_is_right(files, tmp_path, kind):
    out = init(files, tmp_path / "c.yaml", kind=kind)
    assert out.exit_code == 0, out.output
    data = load(tmp_path / "c.yaml").data
    assert (data.user_id, data.item_id, data.time, data.request) == ("uid", "video_id", "ts", None)
    assert {n: label.column for n, label in data.labels.items()} == {"click": "is_click"}
    assert data.split.kind == "time"
    assert {(f.name, f.side, f.kind) for f in data.features} == {
        ("uid", "user", "categorical"),
        ("video_id", "item", "categorical"),
        ("tab", "context", "categorical"),
        ("city", "user", "categorical"),
        ("length", "item", "numeric"),
        ("hist", "context", "sequence"),
        ("age", "user", "numeric"),
        ("genres", "item", "multi"),
        ("price", "item", "numeric"),
    }
    assert data.schema_()["hist"].share == "video_id"


def test_the_model_that_is_proposed(files, tmp_path):
    init(files, tmp_path / "c.yaml")
    config = load(tmp_path / "c.yaml")
    assert config.model.model_dump() == {
        "name": "inttower", "hidden": [128, 64], "heads": 2, "head_width": 32, "dropout": 0.2, "id_head": 64, "id_history": True,
    }  # fmt: skip
    assert (config.training.average, config.training.optimizer.name, config.training.optimizer.lr) == (0.99, "adam", 5e-4)
    groups = {g.match: (g.lr, g.l2, g.count_power) for g in config.training.optimizer.groups}
    log = pl.read_csv(files / "log.csv")
    decay = 0.12 / (log["uid"].n_unique() * log["video_id"].n_unique()) ** 0.5
    assert groups == {
        "*ids.bias": (3e-3, 1e-6, None), "*ids.table": (3e-3, pytest.approx(decay, rel=0.05), 0.5),
        "*history.factors": (3e-4, pytest.approx(2 * decay, rel=0.05), None), "embeddings.tables*": (None, 3e-5, None),
    }  # fmt: skip
    schema = config.data.schema_()
    model = build.model(config.model, schema, {schema.vocabulary_of(f): 9 for f in schema.features})
    names = [name for name, _ in model.named_parameters()]
    assert all(any(fnmatch(name, pattern) for name in names) for pattern in groups)


def test_for_a_stream_there_is_the_section_and_nothing_that_it_refuses(files, tmp_path):
    init(files, tmp_path / "c.yaml", "--online")
    config, text = load(tmp_path / "c.yaml"), (tmp_path / "c.yaml").read_text()
    assert "id_history" not in config.model.options
    assert "# id_history: true  # left out: `prerank online` does not take it" in text
    assert not [g for g in config.training.optimizer.groups if "history" in g.match]
    assert config.online is not None
    assert (config.online.rows, config.online.start) == ("sqlite:///log-rows.db", "runs/log-first")
    assert config.online.publish is not None
    assert config.output != config.online.start
    assert "--kind is_click=10m" in text  # as the label's column is called
    init(files, tmp_path / "c.yaml", "--force")
    assert load(tmp_path / "c.yaml").online is None


def test_what_it_writes_trains(files, tmp_path, monkeypatch):
    monkeypatch.setenv("PRERANK_CACHE", str(tmp_path / "cache"))
    init(files, tmp_path / "c.yaml")
    short = ["--set", "training.epochs=1", "--set", "training.threads=1", "--set", f"output={tmp_path / 'run'}"]
    out = run(app, ["train", "--config", str(tmp_path / "c.yaml"), *short])
    assert out.exit_code == 0, out.output


@pytest.mark.parametrize(("once", "who"), [("user_id", "user_id"), ("item_id", "item_id")])
def test_ids_that_come_once_get_no_history(tmp_path, once, who):
    rng = np.random.default_rng(0)
    ids = {"user_id": rng.integers(0, 9, 99), "item_id": rng.integers(0, 9, 99), once: np.arange(99)}
    pl.DataFrame({**ids, "click": rng.integers(0, 2, 99)}).write_csv(tmp_path / "log.csv")
    run(app, ["init", str(tmp_path / "log.csv"), "-o", str(tmp_path / "c.yaml")])
    config = load(tmp_path / "c.yaml")
    assert (config.model.options["id_head"], "id_history" in config.model.options) == (64, False)
    assert not [g for g in config.training.optimizer.groups if "history" in g.match]
    reason = f"# id_history: true  # left out: in the rows that were looked at, a {who} hardly comes twice"
    assert reason in (tmp_path / "c.yaml").read_text()


def test_a_log_too_large_for_histories_gets_none(files, tmp_path, monkeypatch):
    """Of 4,000 rows 2,800 are train; the whole log counts, not the rows that were looked at."""
    monkeypatch.setattr(module, "SAMPLE", 1000)
    for limit, proposed in ((2800, True), (2799, False)):
        monkeypatch.setattr(module, "MEMORY", limit)
        init(files, tmp_path / "c.yaml", "--force", kind="parquet")
        assert load(tmp_path / "c.yaml").model.options.get("id_history", False) is proposed
    assert "left out: it holds all train rows in memory, and this log has about 0 million rows" in (tmp_path / "c.yaml").read_text()


def test_every_column_left_out_has_a_reason(files, tmp_path):
    init(files, tmp_path / "c.yaml")
    text = (tmp_path / "c.yaml").read_text()
    for reason in (
        "is_click      the outcome decides it",
        "play_time_ms  the outcome decides it",
        "is_like       the outcome decides it",
        "secret        alone it reaches AUC 1.00 on the label: a leak until proved otherwise",
        "constant      always the same value",
        "position      decided after pre-ranking",
        "name          text, nearly every value is different",
        "# like: {column: is_like}",
    ):
        assert reason in text


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("tables", [True, False])
def test_validate_accepts_it(files, tmp_path, kind, tables):
    init(files, tmp_path / "c.yaml", kind=kind, tables=tables)
    out = run(app, ["validate", str(tmp_path / "c.yaml")])
    assert (out.exit_code, out.stderr) == (0, "")
    assert "4,000 rows, 150 users, 80 items; split train 2,800, validation 400, test 800; label click: " in out.stdout


def test_told_roles_win(files, tmp_path):
    out = init(files, tmp_path / "c.yaml", "--label", "is_like", "--item-id", "tab", tables=False)
    assert out.exit_code == 0, out.output
    data = load(tmp_path / "c.yaml").data
    assert (data.item_id, list(data.labels)) == ("tab", ["like"])
    assert "is_click" not in {f.source for f in data.features}


def test_a_rating_becomes_a_rule(tmp_path):
    rng = np.random.default_rng(0)
    pl.DataFrame({"user_id": rng.integers(0, 9, 99), "movie_id": rng.integers(0, 9, 99), "rating": rng.integers(1, 6, 99)}).write_csv(
        tmp_path / "r.csv"
    )
    run(app, ["init", str(tmp_path / "r.csv"), "-o", str(tmp_path / "c.yaml")])
    data = load(tmp_path / "c.yaml").data
    assert data.labels["rating"].rule == "rating > 3"
    assert data.split.kind == "random"
    assert [f.name for f in data.features] == ["user_id", "movie_id"]


def test_text_ids_and_awkward_names_survive_yaml(tmp_path):
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {"user_id": [f"u{i % 7}" for i in range(99)], "item_id": [f"i{i % 5}" for i in range(99)], "click": rng.integers(0, 2, 99)}
    )
    frame = frame.with_columns(pl.Series("no: yes, #1", rng.integers(0, 3, 99)), pl.Series("on", rng.integers(0, 3, 99)))
    folder = tmp_path / "a b: c"
    folder.mkdir()
    frame.write_parquet(folder / "log.parquet")
    assert run(app, ["init", str(folder / "log.parquet"), "-o", str(tmp_path / "c.yaml")]).exit_code == 0
    data = load(tmp_path / "c.yaml").data
    assert {f.name for f in data.features} == {"user_id", "item_id", "no: yes, #1", "on"}
    assert data.log == str(folder / "log.parquet")
    assert run(app, ["validate", str(tmp_path / "c.yaml")]).exit_code == 0


def test_an_existing_config_is_kept(files, tmp_path):
    (tmp_path / "c.yaml").write_text("mine")
    out = init(files, tmp_path / "c.yaml")
    assert (out.exit_code, out.stderr) == (
        2,
        f"error: config '{tmp_path / 'c.yaml'}': exists already; --force replaces it, -o names another\n",
    )
    assert (tmp_path / "c.yaml").read_text() == "mine"
    assert init(files, tmp_path / "c.yaml", "--force").exit_code == 0
    assert yaml.safe_load((tmp_path / "c.yaml").read_text())["name"] == "log"
    assert [p.name for p in tmp_path.iterdir()] == ["c.yaml"]


@pytest.mark.parametrize(
    ("frame", "arguments", "line"),
    [
        (
            {"a": [1], "item_id": [1], "click": [1]},
            [],
            "cannot tell which column is the user id; name it with --user-id COLUMN; columns: a, item_id, click",
        ),
        ({"user_id": [1], "item_id": [1], "a": [1]}, [], "cannot tell which column is the label; name it with --label COLUMN"),
        (
            {"user_id": [1], "item_id": [1], "click": [1]},
            ["--time", "when"],
            "--time: the log has no column 'when'; columns: user_id, item_id, click",
        ),
        (
            {"user_id": [1], "item_id": [1], "a": ["x"]},
            ["--label", "a"],
            "--label: column 'a' is neither 0 and 1, nor true and false, nor a rating",
        ),
    ],
)
def test_what_cannot_be_told_names_its_option(tmp_path, frame, arguments, line):
    pl.DataFrame(frame).write_csv(tmp_path / "log.csv")
    out = run(app, ["init", str(tmp_path / "log.csv"), "-o", str(tmp_path / "c.yaml"), *arguments])
    assert out.exit_code == 2
    assert line in out.stderr
    assert out.stderr.count("\n") == 1
    assert not (tmp_path / "c.yaml").exists()


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "empty.csv").touch()
    (tmp_path / "half.parquet").write_bytes(b"PAR1 and then the disk was full")
    for name, line in (("empty.csv", "the file is empty"), ("half.parquet", "is not a whole Parquet file"), ("none.csv", "no such file")):
        out = run(app, ["init", str(tmp_path / name), "-o", str(tmp_path / "c.yaml")])
        assert out.exit_code == 2
        assert line in out.stderr
        assert out.stderr.count("\n") == 1
    out = run(app, ["init", str(tmp_path / "x.csv"), "-o", str(tmp_path / "nowhere" / "c.yaml")])
    assert f"folder '{tmp_path / 'nowhere'}' does not exist" in out.stderr
