import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from prerank.cli import app
from prerank.cli.pairs import Pairs
from prerank.ensembles import ensemble
from prerank.metrics import sigmoid
from prerank.run import open_run

run = CliRunner().invoke
N = 3000


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small run with features of every place: ids, tables, log, context; and the log it was trained on."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 90, N), rng.integers(0, 50, N)
    log = pl.DataFrame(
        {
            "user_id": user,
            "item_id": item,
            "tab": rng.integers(0, 3, N),
            "mood": rng.random(N),
            "device": [f"d{u % 5}" for u in user],
            "recent": [[int(v) for v in rng.integers(0, 50, 3)] for _ in range(N)],
            "click": (rng.random(N) < 0.2 + 0.5 * (item % 2)).astype(int),
            "like": (rng.random(N) < 0.3).astype(int),
        }
    )
    log.write_parquet(folder / "log.parquet")
    pl.DataFrame({"user_id": np.arange(90), "age": rng.integers(18, 80, 90)}).write_parquet(folder / "users.parquet")
    pl.DataFrame({"item_id": np.arange(50), "price": rng.random(50), "genres": ["a|b", "b"] * 25}).write_parquet(folder / "items.parquet")
    config = {
        "data": {
            "log": str(folder / "log.parquet"),
            "users": str(folder / "users.parquet"),
            "items": str(folder / "items.parquet"),
            "cache": str(folder / "cache"),
            "labels": {"click": {"column": "click"}, "like": {"column": "like"}},
            "features": [
                {"name": "user_id", "side": "user"},
                {"name": "age", "side": "user", "kind": "numeric"},
                {"name": "device", "side": "user"},
                {"name": "recent", "side": "user", "kind": "sequence", "share": "item_id"},
                {"name": "tab", "side": "context"},
                {"name": "mood", "side": "context", "kind": "numeric", "bins": 8},
                {"name": "item_id", "side": "item"},
                {"name": "price", "side": "item", "kind": "numeric"},
                {"name": "genres", "side": "item", "kind": "multi"},
            ],
            "width": 8,
        },
        "model": {"name": "dssm"},
        "training": {"epochs": 1, "batch_size": 256, "threads": 1, "device": "cpu"},
        "output": str(folder / "run"),
    }
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    out = run(app, ["train", "--config", str(folder / "c.yaml"), "--quiet"])
    assert out.exit_code == 0, out.output
    return folder, log


def predict(trained, source, target, *more):
    return run(app, ["predict", str(trained[0] / "run"), str(source), str(target), *more])


def test_the_log_scored_from_a_file_is_the_log_scored_in_training(trained, tmp_path):
    folder, log = trained
    out = predict(trained, folder / "log.parquet", tmp_path / "out.parquet", "--batch-rows", "700")
    assert out.exit_code == 0, out.output
    assert out.stdout.startswith(f"{tmp_path / 'out.parquet'}: 3,000 rows in ")
    scored = pl.read_parquet(tmp_path / "out.parquet")
    assert scored.drop("p_click", "p_like").equals(log)
    opened = open_run(folder / "run")
    logits, _ = opened.logits("test")
    rows = opened.dataset.rows("test")
    expected = sigmoid(logits)
    np.testing.assert_allclose(scored["p_click"].to_numpy()[rows], expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(scored["p_like"].to_numpy()[rows], expected[:, 1], atol=1e-5)


def test_the_size_of_batches_changes_nothing(trained, tmp_path):
    scores = []
    for rows in (1, 999, 100_000):
        small = trained[1].head(50) if rows == 1 else trained[1]
        small.write_parquet(tmp_path / "in.parquet")
        assert predict(trained, tmp_path / "in.parquet", tmp_path / "out.parquet", "--batch-rows", str(rows), "--force").exit_code == 0
        scores.append(pl.read_parquet(tmp_path / "out.parquet")["p_click"].to_numpy())
    np.testing.assert_allclose(scores[0], scores[2][:50], atol=1e-6)
    np.testing.assert_allclose(scores[1], scores[2], atol=1e-6)


def test_ids_alone_are_enough_and_what_is_missing_is_said(trained, tmp_path):
    pl.DataFrame({"item_id": [1, 2, 999], "user_id": [5, 777, 888]}).write_parquet(tmp_path / "in.parquet")
    out = predict(trained, tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert out.exit_code == 0, out.output
    assert out.stderr.splitlines() == [
        "warning: feature 'tab': the input has no such column; scored as missing",
        "warning: feature 'mood': the input has no such column; scored as missing",
    ]
    assert "3 rows (2 with an unknown user, 1 with an unknown item)" in out.stdout
    p = pl.read_parquet(tmp_path / "out.parquet")["p_click"]
    assert p.is_between(0, 1).all()
    assert p.is_finite().all()


def test_a_feature_in_the_file_wins_over_what_the_run_knows(trained, tmp_path):
    opened = open_run(trained[0] / "run")
    place = lambda i: f"row {i + 1}"  # noqa: E731
    known = pl.DataFrame({"user_id": [3, 3], "item_id": [7, 7]})
    told = known.with_columns(price=pl.Series([0.1, 99.0]))
    ages = opened.dataset.encoders["price"].encode(told["price"])
    without = Pairs(opened.dataset, opened.config.data, known.columns).batch(known, place)
    given = Pairs(opened.dataset, opened.config.data, told.columns).batch(told, place)
    assert without.item["price"].shape == (1,)  # one distinct item
    assert without.item_index.tolist() == [[0], [0]]
    assert given.item["price"].tolist() == ages.tolist()
    assert given.item_index.tolist() == [[0], [1]]
    assert given.user_index.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("frame", "line"),
    [
        ({"user_id": [1]}, "error: input: no column 'item_id', the item id"),
        ({"user_id": ["x"], "item_id": [1]}, "error: input, column 'user_id': 1 value is not an integer, first at row 1 of the input: 'x'"),
        ({"user_id": [1], "item_id": [1], "p_like": [0.5]}, "error: input: has a column 'p_like' already, where the probability would go"),
        (
            {"user_id": [1, 1], "item_id": [1, 2], "mood": ["0.5", "bad"]},
            "error: feature 'mood': 1 value is not a number, first at row 2 of the input: 'bad'",
        ),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(trained, tmp_path, frame, line):
    pl.DataFrame(frame).write_parquet(tmp_path / "in.parquet")
    out = predict(trained, tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert out.exit_code == 2
    assert [x for x in out.stderr.splitlines() if x.startswith(line)], out.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["in.parquet"]


def test_row_numbers_count_through_batches(trained, tmp_path):
    frame = pl.DataFrame({"user_id": [1] * 10, "item_id": [1] * 10, "mood": ["0.5"] * 7 + ["bad"] + ["0.1"] * 2})
    frame.write_parquet(tmp_path / "in.parquet")
    out = predict(trained, tmp_path / "in.parquet", tmp_path / "out.parquet", "--batch-rows", "3")
    assert "first at row 8 of the input: 'bad'" in out.stderr


def test_files_that_are_none(trained, tmp_path):
    (tmp_path / "half.parquet").write_bytes(b"PAR1 and no more")
    for name, line in (("half.parquet", "is not a whole Parquet file"), ("gone.parquet", "no such file")):
        out = predict(trained, tmp_path / name, tmp_path / "out.parquet")
        assert (out.exit_code, out.stderr) == (2, f"error: input '{tmp_path / name}': {line}\n")
    (tmp_path / "out.parquet").write_text("mine")
    out = predict(trained, trained[0] / "log.parquet", tmp_path / "out.parquet")
    assert (out.exit_code, out.stderr) == (2, f"error: output '{tmp_path / 'out.parquet'}': exists already; --force replaces it\n")
    assert (tmp_path / "out.parquet").read_text() == "mine"
    out = predict(trained, trained[0] / "log.parquet", tmp_path / "nowhere" / "out.parquet")
    assert f"folder '{tmp_path / 'nowhere'}' does not exist" in out.stderr


def test_no_rows_give_no_rows(trained, tmp_path):
    pl.DataFrame({"user_id": [1], "item_id": [1]}).clear().write_parquet(tmp_path / "in.parquet")
    assert predict(trained, tmp_path / "in.parquet", tmp_path / "out.parquet").exit_code == 0
    written = pq.read_schema(tmp_path / "out.parquet")
    assert written.names == ["user_id", "item_id", "p_click", "p_like"]


def test_an_ensemble_scores_what_its_members_say_together(trained, tmp_path):
    folder, log = trained
    other = yaml.safe_load((folder / "c.yaml").read_text()) | {"model": {"name": "mf", "width": 4}, "output": str(folder / "other")}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    assert run(app, ["train", "--config", str(tmp_path / "other.yaml"), "--quiet", "--overwrite"]).exit_code == 0
    made = ensemble([open_run(folder / "run"), open_run(folder / "other")], tmp_path / "both", resamples=0)
    files = [str(folder / "log.parquet"), str(tmp_path / "out.parquet")]
    out = run(app, ["predict", str(tmp_path / "both"), *files, "--prefix", "teacher_score_"])
    assert out.exit_code == 0, out.output
    scored = pl.read_parquet(tmp_path / "out.parquet")
    assert scored.columns == [*log.columns, "teacher_score_click", "teacher_score_like"]
    runs = [open_run(folder / name) for name in ("run", "other")]
    logits = [one.logits("test")[0][:, 1] for one in runs]
    expected = sigmoid(sum(w * z for w, z in zip(made.weights["like"], logits, strict=True)))
    np.testing.assert_allclose(scored["teacher_score_like"].to_numpy()[runs[0].dataset.rows("test")], expected, atol=1e-5)
