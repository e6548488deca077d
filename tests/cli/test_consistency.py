"""`prerank consistency` from end to end: files and runs of the simulated cascade, exit statuses, what is printed and written."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from prerank.cli import app
from tests.consistency.world import candidates, trained

run = CliRunner().invoke


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("scored") / "scored.parquet"
    candidates(80).write_parquet(path)
    return str(path)


def consistency(*arguments: str):
    return run(app, ["consistency", *arguments, "--resamples", "50"], prog_name="prerank")


def test_a_file(scored: str, tmp_path: Path) -> None:
    done = consistency(scored, "--score", "good", "--ranking", "ranking", "--against", "bad", "--logits", "score", "--stage", "stage",
                       "--at", "3", "--at", "10", "--out", str(tmp_path / "report"))  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "overlap@10" in done.stdout
    assert f"written: {tmp_path / 'report' / 'consistency.json'}, " in done.stdout
    record = json.loads((tmp_path / "report" / "consistency.json").read_text())
    assert record["against"]["difference"]["overlap@10"]["low"] > 0
    assert (tmp_path / "report" / "consistency.html").stat().st_size > 100_000


def test_json_is_all_that_is_printed(scored: str) -> None:
    done = consistency(scored, "--score", "good", "--ranking", "ranking", "--json")
    assert json.loads(done.stdout)["requests"] == 80


@pytest.mark.parametrize(
    ("gate", "status", "lines"),
    [
        ("metrics: {overlap@3: {min: 0.01}, regret@3: {max: 0.99, sure: true}}", 0, []),
        ("metrics: {overlap@3: {min: 0.99}, kendall: {min: 0.99}}", 1, ["broken: overlap@3: must be at least 0.99; it is ",
                                                                        "broken: kendall: must be at least 0.99; it is "]),
        ("difference: {overlap@3: {min: 0.0}}", 2, ["error: gate.yaml: difference: needs a second pre-ranker; give --against"]),
        ("metrics: {overlap@4: {min: 0.0}}", 2, ["error: gate.yaml: metrics: no metric 'overlap@4'; did you mean 'overlap@3'?"]),
    ],
)  # fmt: skip
def test_the_gate(scored: str, tmp_path: Path, monkeypatch, gate: str, status: int, lines: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gate.yaml").write_text(gate)
    done = consistency(scored, "--score", "good", "--ranking", "ranking", "--at", "3", "--thresholds", "gate.yaml")
    assert done.exit_code == status, done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert len(said) == len(lines)
    assert all(found.startswith(expected) for found, expected in zip(said, lines, strict=True))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "error: consistency: give a file of scored requests or --run, one of the two"),
        (["FILE", "--run", "x"], "error: consistency: give a file of scored requests or --run, one of the two"),
        (["FILE", "--logits", "scores"], "error: --logits: unknown 'scores'; did you mean 'score'?"),
        (["FILE", "--split", "train"], "error: --split: belongs to runs (--run), not to a file"),
        (["--run", "x", "--bid", "bid"], "error: --bid: belongs to a file; a run's data says it itself"),
        (["FILE", "--score", "good", "--ranking", "ranking", "--against", "good"], "error: --against: is --score itself, 'good'"),
        (["nowhere.parquet"], "error: scored requests 'nowhere.parquet': no such file, or no CSV or Parquet file in it"),
        (["FILE", "--at", "0"], "error: --at: must be numbers from 1 on; got [0]"),
    ],
)
def test_misuse_is_one_line_and_status_2(scored: str, arguments: list[str], line: str) -> None:
    done = consistency(*(scored if a == "FILE" else a for a in arguments))
    assert (done.exit_code, done.stderr) == (2, line + "\n")


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    frame = candidates(30)
    broken = frame.with_columns(ranking=pl.when(pl.col("item_id") % 7 == 0).then(None).otherwise("ranking"),
                                good=pl.when(pl.col("item_id") % 11 == 0).then(float("nan")).otherwise("good"))  # fmt: skip
    broken.write_csv(tmp_path / "scored.csv")
    done = consistency(str(tmp_path / "scored.csv"), "--score", "good", "--ranking", "ranking", "--at", "3")
    assert done.exit_code == 0
    nan = (frame["item_id"] % 11 == 0).sum()
    assert f"note: {nan:,} of {len(frame):,} candidates have no finite score of good: left out" in done.stderr
    assert "candidates have no score of the ranking model: left out, but for the recall of logged stages" in done.stderr


def test_a_negative_bid_is_refused(tmp_path: Path) -> None:
    candidates(30).with_columns(bid=pl.lit(-1.0)).write_parquet(tmp_path / "scored.parquet")
    done = consistency(str(tmp_path / "scored.parquet"), "--score", "good", "--ranking", "ranking", "--bid", "bid")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: bid: must be numbers from 0 on, ")


def test_runs(tmp_path: Path) -> None:
    candidates(200).write_parquet(tmp_path / "log.parquet")
    mf, ranker = (trained(tmp_path, name, model={"name": model, **more}) for name, model, more in
                  (("mf", "mf", {"width": 8}), ("ranker", "deepfm", {"hidden": [8]})))  # fmt: skip
    done = consistency("--run", str(mf), "--against", str(ranker), "--at", "3")
    assert done.exit_code == 0, done.stderr
    record = json.loads((mf / "consistency.json").read_text())
    assert (record["pre_ranker"], record["ranking"], record["against"]["name"]) == ("mf", "the log's teacher", "ranker")
    done = consistency("--run", str(mf), "--ranking", str(ranker), "--at", "3", "--out", str(tmp_path / "report"))
    assert done.exit_code == 0, done.stderr
    assert "note: test rows in lists by request" in done.stderr
