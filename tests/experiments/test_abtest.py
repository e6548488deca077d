"""A/B tests read back: intervals that cover, a sample ratio that is looked at, errors that name the column."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from prerank.cli import app
from prerank.data import DataError
from prerank.experiments import Columns, Settings, compare, read
from prerank.experiments.page import markdown, page


def shown(users: int = 400, lift: float = 0.0, seed: int = 0, share: float = 0.5) -> pl.DataFrame:
    """Impressions of users with tastes of their own: rows of one user are anything but independent."""
    rng = np.random.default_rng(seed)
    arm = rng.random(users) < share
    taste = rng.beta(2, 6, users) * np.where(arm, 1 + lift, 1)
    n = rng.geometric(0.1, users)
    user = np.repeat(np.arange(users), n)
    click = rng.random(len(user)) < taste[user]
    return pl.DataFrame({
        "user_id": user, "arm": np.where(arm[user], "new", "old"), "click": click.astype(np.int8),
        "revenue": click * rng.exponential(2, len(user)), "request": np.arange(len(user)) // 3,
        "milliseconds": rng.exponential(1, len(user)), "ts": 1_700_000_000_000 + 1000 * np.arange(len(user)),
    })  # fmt: skip


def record(frame: pl.DataFrame, path: Path, **changes: Any) -> dict[str, Any]:
    frame.write_parquet(path / "rows.parquet")
    columns = Columns(rates=("click",), values=("revenue",), latency="milliseconds", request="request", time="ts", **changes)
    return compare(read(path / "rows.parquet", columns), Settings("old"))


def test_numbers_are_those_of_the_rows(tmp_path: Path) -> None:
    frame = shown()
    found = record(frame, tmp_path)
    for arm in ("old", "new"):
        own = frame.filter(pl.col("arm") == arm)
        assert found["metrics"]["click"]["arms"][arm]["value"] == pytest.approx(own["click"].mean())
        assert found["metrics"]["revenue per 1,000"]["arms"][arm]["value"] == pytest.approx(1000 * own["revenue"].mean())
        assert found["users"][arm] == own["user_id"].n_unique()
        once = own.filter(pl.col("request").is_in(frame.filter(pl.col("request").is_first_distinct())["request"]))
        assert found["latency"][arm]["requests"] <= once["request"].n_unique()
    rates = {a: found["metrics"]["click"]["arms"][a]["value"] for a in ("old", "new")}
    assert found["metrics"]["click"]["arms"]["new"]["relative"]["value"] == pytest.approx(rates["new"] / rates["old"] - 1)
    last = found["over_time"]["click"]["new"][-1]
    assert last["value"] == found["metrics"]["click"]["arms"]["new"]["relative"]["value"]  # the last moment has seen all
    assert "old" not in found["over_time"]["click"]


def test_intervals_cover_nothing_where_there_is_nothing(tmp_path: Path) -> None:
    """Of 200 A/A tests about 5 % are below p = .05, although rows of a user are alike; taken as independent, rows are wrong far oftener."""
    wrong = wrong_by_rows = 0
    for seed in range(200):
        frame = shown(200, seed=seed)
        frame.write_parquet(tmp_path / "rows.parquet")
        found = compare(read(tmp_path / "rows.parquet", Columns(rates=("click",))), Settings("old"))
        wrong += found["metrics"]["click"]["arms"]["new"]["difference"]["p"] < 0.05
        by_row = frame.with_columns(user_id=pl.int_range(len(frame)))
        by_row.write_parquet(tmp_path / "rows.parquet")
        found = compare(read(tmp_path / "rows.parquet", Columns(rates=("click",))), Settings("old"))
        wrong_by_rows += found["metrics"]["click"]["arms"]["new"]["difference"]["p"] < 0.05
    assert 3 <= wrong <= 20
    assert wrong_by_rows > wrong


def test_a_lift_is_found_with_its_size(tmp_path: Path) -> None:
    found = record(shown(20_000, lift=0.1), tmp_path)["metrics"]["click"]["arms"]["new"]["relative"]
    assert found["p"] < 1e-6
    assert found["low"] < 0.1 < found["high"]


def test_a_sample_ratio_that_is_off_is_said_and_ends_with_1(tmp_path: Path) -> None:
    shown(4000, share=0.4).write_parquet(tmp_path / "rows.parquet")
    call = ["abtest", str(tmp_path / "rows.parquet"), "--control", "old", "--rate", "click"]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 1
    assert "Sample-ratio mismatch" in done.output
    assert CliRunner().invoke(app, [*call, "--share", "old=0.6", "--share", "new=0.4"]).exit_code == 0


def test_users_of_two_arms_are_left_out_and_said(tmp_path: Path) -> None:
    frame = shown()
    both = frame.head(1).with_columns(arm=pl.lit("new" if frame["arm"][0] == "old" else "old"))
    found = record(pl.concat([frame, both]), tmp_path)
    assert sum(found["users"].values()) == frame["user_id"].n_unique() - 1
    assert found["said"][0] == "1 of 400 users saw more than one arm"
    assert "are of users that saw more than one arm: left out" in found["said"][1]


def test_rows_of_another_experiment_are_left_out(tmp_path: Path) -> None:
    frame = pl.concat([shown().with_columns(experiment=pl.lit("a")), shown(seed=1).with_columns(experiment=pl.lit("b"))])
    found = record(frame, tmp_path, experiment="experiment", name="a")
    assert sum(found["rows"].values()) == len(shown())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"click": pl.lit(2)}, "rate 'click': must be 0 or 1; .* rows are not, the first is 2; is it a --value"),
        ({"arm": pl.lit("old")}, "column 'arm' must name at least two arms; found old"),
        ({"revenue": pl.lit(float("inf"))}, "value 'revenue': must be finite numbers"),
        ({"ts": pl.lit("noon")}, "time 'ts': must be integer milliseconds or a date"),
    ],
)
def test_bad_input(tmp_path: Path, change: dict[str, pl.Expr], message: str) -> None:
    with pytest.raises(DataError, match=message):
        record(shown().with_columns(**change), tmp_path)


def test_an_arm_that_nobody_saw(tmp_path: Path) -> None:
    shown().write_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="arm 'odl': nobody saw it; arms: new, old"):
        compare(read(tmp_path / "rows.parquet", Columns(rates=("click",))), Settings("odl"))


def test_on_the_command_line(tmp_path: Path) -> None:
    shown(2000, lift=0.2).write_csv(tmp_path / "rows.csv")
    call = ["abtest", str(tmp_path / "rows.csv"), "--control", "old", "--rate", "click", "--value", "revenue", "--time", "ts",
            "--latency", "milliseconds", "--request", "request", "--out", str(tmp_path / "report")]  # fmt: skip
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    assert "Users are dealt as configured" in done.output
    told = json.loads((tmp_path / "report/abtest.json").read_text())
    assert told == json.loads(CliRunner().invoke(app, [*call, "--json"]).stdout)
    assert markdown(told) == (tmp_path / "report/abtest.md").read_text()
    assert page(told).count("<img") == 2
    for wrong, message in ((["--share", "old"], "--share: must be ARM=NUMBER"), (["--rate", "clik"], "has no column 'clik'")):
        refused = CliRunner().invoke(app, [*call, *wrong])
        assert refused.exit_code == 2
        assert message in refused.output
    assert "at least one --rate" in CliRunner().invoke(app, [*call[:4]]).output


def test_a_folder_that_cannot_be_made_is_told_of_first(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("a file")
    call = ["abtest", str(tmp_path / "none.parquet"), "--control", "old", "--rate", "click", "--out", str(tmp_path / "report")]
    done = CliRunner().invoke(app, call)
    assert (done.exit_code, done.stderr) == (2, f"error: '{tmp_path / 'report'}': File exists\n")
