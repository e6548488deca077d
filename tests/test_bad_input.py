"""What the world gives us, end to end through the command line: each fault is one clear line that names the thing, the rule
and what came, exit status 2 (130 for Ctrl-C); nothing half-written stands under a final name; the next run works.

Values, columns and settings of a single room have their tests beside that room (tests/data, tests/cli/test_validate.py,
tests/serving/test_http.py); here the same faults come through the whole walk, and those that only the whole walk can have.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
import yaml
from safetensors import SafetensorError
from typer.testing import CliRunner

from prerank.cli import app
from prerank.data.errors import writing
from tests.training.conftest import planted_log, settings

DSSM = {"name": "dssm", "hidden": [8], "width": 4}
ROWS = 2000


def log(**columns: pl.Expr) -> pl.DataFrame:
    return planted_log(ROWS, 40, 30).with_columns(**columns)


def at(row: int, value: Any, column: str, dtype: Any = None) -> pl.Expr:
    """`column` with another value in one row (from 1, as messages count)."""
    own = pl.col(column) if dtype is None else pl.col(column).cast(dtype)
    return pl.when(pl.int_range(pl.len()) == row - 1).then(pl.lit(value, dtype)).otherwise(own)


def run(*arguments: str) -> tuple[int, list[str]]:
    """Status and the lines on stderr; what is no clean exit is raised."""
    done = CliRunner().invoke(app, list(arguments), prog_name="prerank")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stderr.splitlines()


def written(folder: Path, frame: pl.DataFrame | None = None, **changes: Any) -> list[str]:
    """Log and config in `folder`; the arguments that train on them."""
    if frame is not None:
        frame.write_parquet(folder / "log.parquet")
    (folder / "config.yaml").write_text(yaml.safe_dump(settings(folder, **{"training.epochs": 1, **changes})))
    return ["train", "--quiet", "--config", str(folder / "config.yaml")]


def refused(folder: Path, line: str, frame: pl.DataFrame | None = None, **changes: Any) -> None:
    """Training ends with this one line, and leaves no run behind."""
    status, lines = run(*written(folder, frame, **changes))
    assert (status, len(lines)) == (2, 1), lines
    assert lines[0].startswith(f"error: {line.format(d=folder)}"), lines[0]
    left = {p.name for p in (folder / "run").glob("*")} if (folder / "run").exists() else set()
    assert left <= {".lock"}, left
    assert not list(folder.glob("cache/.*")), "a half-prepared cache was left"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained and exported run."""
    folder = tmp_path_factory.mktemp("good")
    assert run(*written(folder, log(), model=DSSM))[0] == 0
    assert run("export", str(folder / "run"))[0] == 0
    return folder


# --- the data -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"user": at(17, None, "user")}, "user id 'user': must not be missing, 1 value is, first at row 17 of log.parquet"),
        ({"user": at(6, 2**63, "user", pl.UInt64)}, "user id 'user': 1 value does not fit a 64-bit integer (store such ids as text), "
         "first at row 6 of log.parquet: 9223372036854775808"),
        ({"item": at(6, 1e30, "item", pl.Float64)}, "item id 'item': 1 value is not an integer, first at row 6 of log.parquet: 1e+30"),
        ({"user": pl.concat_list("user", "item")}, "user id 'user': 2000 values are not integers, first at row 1 of log.parquet: ["),
        ({"kind": pl.struct("kind", "item")}, "feature 'kind': 1"),
        ({"click": at(5, float("nan"), "click", pl.Float64)}, "label 'click': 1 row has no value (missing, NaN or infinite), "
         "first at row 5 of log.parquet"),
        ({"click": at(5, float("-inf"), "click", pl.Float64)}, "label 'click': 1 row has no value (missing, NaN or infinite), first"),
        ({"click": pl.lit(1)}, "label 'click': all 1378 train rows are 1, a label needs two classes"),
        ({"click": pl.col("click") * 5}, "objective 'logloss': label 'click' must lie in [0, 1]; its values go from 0 to 5"),
        ({"click": pl.lit("yes")}, "label 'click', column 'click': 2000 values are not numbers, first at row 1 of log.parquet: 'yes'"),
    ],
)  # fmt: skip
def test_wrong_values(tmp_path: Path, change: dict[str, pl.Expr], line: str) -> None:
    refused(tmp_path, line, log(**change))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "log '{d}/log.parquet': the file is empty"),
        (b"PAR1 and then the disk was full", "log '{d}/log.parquet': is not a whole Parquet file (half-written?)"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes, line: str) -> None:
    (tmp_path / "log.parquet").write_bytes(content)
    refused(tmp_path, line)


def test_a_parquet_file_cut_in_the_middle(tmp_path: Path) -> None:
    log().write_parquet(tmp_path / "log.parquet")
    whole = (tmp_path / "log.parquet").read_bytes()
    (tmp_path / "log.parquet").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path, "log '{d}/log.parquet': is not a whole Parquet file (half-written?)")
    (tmp_path / "log.parquet").write_bytes(whole)
    assert run(*written(tmp_path))[0] == 0


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (lambda t: t.splitlines()[0] + "\n", "log '{d}/log.csv': has a header but no rows"),
        (lambda t: t.replace("\n", "\n1,2\n", 1), "log '{d}/log.csv': cannot be read: CSV parse error: Row #2: Expected 7 columns"),
        (lambda t: t.replace("user", "usr", 1), "data.user_id: log '{d}/log.csv' has no column 'user'; did you mean 'usr'?"),
        (lambda t: t.replace("user", "item", 1), "log '{d}/log.csv': column 'item' occurs 2 times"),
    ],
)
def test_wrong_csv(tmp_path: Path, text: Callable[[str], str], line: str) -> None:
    frame = log()
    (tmp_path / "log.csv").write_text(text(frame.write_csv()))
    refused(tmp_path, line, **{"data.log": str(tmp_path / "log.csv")})


@pytest.mark.parametrize("dress", [lambda b: b"\xef\xbb\xbf" + b, lambda b: b.replace(b"\n", b"\r\n")], ids=["bom", "crlf"])
def test_csv_of_other_systems_is_the_same_data(tmp_path: Path, dress: Callable[[bytes], bytes]) -> None:
    frame = log(user="u, " + pl.col("user").cast(pl.String))  # ids with commas in them
    expected = None
    for name, text in (("plain", frame.write_csv().encode()), ("dressed", dress(frame.write_csv().encode()))):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "log.csv").write_bytes(text)
        assert run(*written(folder, **{"data.log": str(folder / "log.csv")})) == (0, [])
        history = json.loads((folder / "run" / "history.jsonl").read_text())
        found = {k: v for k, v in history.items() if k != "rows_per_second"}
        assert expected in (None, found)
        expected = found


def test_whatever_a_column_is_called(tmp_path: Path) -> None:
    """Spaces, other alphabets, dots, path separators, and names that torch has taken."""
    names = ["group of user", "種類", "a.b", "../../up", "type", "items"]
    frame = planted_log(ROWS, 40, 30).with_columns(*(pl.col("utility").alias(n) for n in names[2:]))
    frame = frame.rename({"group": names[0], "kind": names[1]})
    features = [{"name": "user", "side": "user"}, {"name": names[0], "side": "user"}, {"name": "item", "side": "item"},
                {"name": names[1], "side": "item", "width": 3},
                *({"name": n, "side": "context", "kind": "numeric"} for n in names[2:])]  # fmt: skip
    assert run(*written(tmp_path, frame, model=DSSM, **{"data.features": features})) == (0, [])
    assert run("export", str(tmp_path / "run")) == (0, [])
    assert run("eval", str(tmp_path / "run"), "--resamples", "0")[0] == 0


@pytest.mark.parametrize(
    ("changes", "columns"),
    [
        ({"training.batch_size": 512}, {"s": (pl.int_range(pl.len()) >= 1025).cast(pl.Int8)}),  # the last batch has one row
        ({"training.batch_size": 1}, {"s": (pl.int_range(pl.len()) >= 40).cast(pl.Int8)}),
        ({"training.batch_size": 10**7}, {}),
        ({}, {"user": pl.lit(1), "group": pl.lit(1)}),  # one user: every batch has one distinct row
        ({}, {"group": pl.lit(None, pl.Int64)}),
        ({"data.split": {"validation": 0.0, "test": 0.0}}, {}),
    ],
    ids=["last batch of one", "batch of one", "batch larger than the data", "one user", "a feature all missing", "train rows only"],
)
def test_odd_but_right(tmp_path: Path, changes: dict[str, Any], columns: dict[str, pl.Expr]) -> None:
    if "s" in columns:
        changes = {**changes, "data.split": {"kind": "column", "column": "s"}}
    assert run(*written(tmp_path, log(**columns), model={**DSSM, "dropout": 0.1}, **changes)) == (0, [])
    weights = tmp_path / "run" / "model.safetensors"
    from safetensors.torch import load_file

    assert all(w.isfinite().all() for w in load_file(weights).values())


def test_numbers_beyond_float32_and_empty_lists_train_and_stay_finite(tmp_path: Path) -> None:
    cycle = pl.int_range(pl.len()) % 4
    wild = pl.when(cycle == 0).then(float("nan")).when(cycle == 1).then(float("inf")).when(cycle == 2).then(1e308)
    wild = wild.otherwise(pl.col("utility"))
    features = [{"name": "user", "side": "user"}, {"name": "wild", "side": "user", "kind": "numeric"},
                {"name": "binned", "column": "wild", "side": "user", "kind": "numeric", "bins": 4},
                {"name": "seen", "side": "user", "kind": "sequence", "share": "item", "pooling": "attention"},
                {"name": "item", "side": "item"}]  # fmt: skip
    frame = log(wild=wild, seen=pl.lit([], pl.List(pl.Int64)))
    assert run(*written(tmp_path, frame, model=DSSM, **{"data.features": features})) == (0, [])
    history = json.loads((tmp_path / "run" / "history.jsonl").read_text())
    assert 0 < history["validation_logloss"] < 2


# --- the settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model": {"name": "intower"}}, "unknown model 'intower'; did you mean 'inttower'?"),
        ({"model": {"name": "dssm", "hidden": [0]}}, "model 'dssm': hidden: widths must be at least 1; got [0]"),
        ({"model": {"name": "dssm", "hidden": "abc"}}, "model 'dssm': option 'hidden': "),
        ({"model": {"name": "mf", "width": "8"}}, "model 'mf': option 'width': Input should be a valid integer; got '8'"),
        ({"model": {"name": "mf", "width": 10**12}}, "model 'mf': "),  # more memory than there is
        ({"objective": [{"loss": "cir", "temperature": "warm"}]}, "objective 'cir': option 'temperature': Input should be a valid number"),
        ({"objective": [{"loss": "logloss", "reduction": "max"}]}, "objective 'logloss': reduction: must be mean or sum; got 'max'"),
        ({"training.optimizer": {"lr": float("inf")}}, "{d}/config.yaml: training.optimizer.lr: Input should be a finite number; got inf"),
        ({"training.monitor": "ndcg"}, "{d}/config.yaml: training.monitor: must be auc, gauc, logloss, recall@K or ndcg@K; got 'ndcg'"),
        ({"training.epoch": 3}, "{d}/config.yaml: unknown key 'training.epoch'; did you mean 'epochs'?"),
        ({"training.device": "meta"}, "training.device: must be auto, cpu or cuda[:n]; got 'meta'"),
        ({"data.split": {"kind": "time", "validation": "1990-01-01", "test": "1991-01-01"}}, "split: no row is left to train on"),
        ({"data.labels": {}}, "data.labels: at least one label is needed"),
        ({"data.user_id": "usr"}, "data.user_id: log '{d}/log.parquet' has no column 'usr'; did you mean 'user'?"),
    ],
)
def test_wrong_settings(tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    if "training.device" in changes:  # told after the data is prepared: the run folder is claimed by then
        assert run(*written(tmp_path, log(), **changes)) == (2, [f"error: {line}"])
        assert run(*written(tmp_path)) == (0, [])  # a run that never came to a checkpoint is nobody's
        return
    refused(tmp_path, line, log(), **changes)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: a\nname: b\n", "not valid YAML: key 'name' stands twice (line 2, column 1)"),
        ("[" * 5000, "not valid YAML: brackets inside brackets without end"),
        ("name: !!python/object/apply:os.abort []", "not valid YAML: could not determine a constructor for the tag"),
        ("\xff", "is not text in UTF-8"),
    ],
)
def test_a_config_that_is_none(tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "config.yaml").write_bytes(text.encode("latin1"))
    status, lines = run("train", "--config", str(tmp_path / "config.yaml"))
    assert (status, len(lines)) == (2, 1)
    assert lines[0].startswith(f"error: config '{tmp_path}/config.yaml': {line}")


def test_moments_need_no_quotes(tmp_path: Path) -> None:
    """YAML reads 2022-04-15 as a date, where the setting takes text or a fraction."""
    train = written(tmp_path, log())
    text = (tmp_path / "config.yaml").read_text()
    split = "  split: {kind: time, validation: 1970-01-20 02:38:20, test: 2022-04-15}"
    (tmp_path / "config.yaml").write_text(text.replace("data:\n", f"data:\n{split}\n"))
    assert run(*train) == (2, ["error: split: no row is left to train on (kind time, validation 1970-01-20 02:38:20, test 2022-04-15)"])


def test_resume_and_overwrite_are_one_or_the_other(tmp_path: Path) -> None:
    line = "error: train: --resume continues a run and --overwrite discards it; give one of them"
    assert run(*written(tmp_path, log()), "--resume", "--overwrite") == (2, [line])


@pytest.mark.parametrize("text", ["- a\n- b\n", "3\n", ""])
def test_a_config_of_another_shape(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    status, lines = run("train", "--config", str(tmp_path / "config.yaml"))
    assert (status, len(lines)) == (2, 1)
    assert lines[0].startswith(f"error: config '{tmp_path}/config.yaml': must be a mapping" if text else "error: data.labels: at least one")


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("training.epochs", "--set 'training.epochs': must look like key.path=value"),
        ("=3", "--set '=3': must look like key.path=value"),
        ("training.epochs.x=3", "--set 'training.epochs.x=3': 'x' lies inside a plain value"),
        ("data.features.99.side=user", "--set 'data.features.99.side=user': '99' must be an index below 4"),
        ("data.features.²=1", "--set 'data.features.²=1': '²' must be an index below 4"),
        ("output={a:", "--set 'output={a:': the value is not valid YAML"),
    ],
)
def test_wrong_overrides(tmp_path: Path, setting: str, line: str) -> None:
    assert run(*written(tmp_path, log()), "--set", setting) == (2, [f"error: {line}"])


def test_a_validation_split_of_one_class_is_told_before_the_first_epoch(tmp_path: Path) -> None:
    late = pl.when(pl.int_range(pl.len()) >= 1500).then(1).otherwise(pl.col("click"))
    line = "label 'click': all 400 validation rows are positive, so that no epoch can be chosen on them"
    refused(tmp_path, line, log(click=late), **{"data.split": {"kind": "time", "validation": 0.2, "test": 0.05}})


def test_a_diverging_run_is_one_line_and_the_next_one_may_have_its_folder(tmp_path: Path) -> None:
    status, lines = run(*written(tmp_path, log(), **{"training.optimizer": {"lr": 1e37}}))
    assert (status, len(lines)) == (2, 1)
    assert lines[0].startswith("error: training diverged in epoch 1, batch ")
    assert run(*written(tmp_path)) == (0, [])


# --- folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["/dev/null", "/dev/null/x", "/proc/x"])
def test_an_output_that_cannot_be(tmp_path: Path, output: str) -> None:
    status, lines = run(*written(tmp_path, log(), output=output))
    assert (status, len(lines)) == (2, 1)
    assert lines[0].startswith(f"error: '{output}': ")


def test_a_run_copied_elsewhere_works_and_a_damaged_one_is_named(good: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copied"
    shutil.copytree(good / "run", copy)
    assert run("eval", str(copy), "--resamples", "0")[0] == 0
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    status, lines = run("eval", str(copy))
    assert (status, len(lines)) == (2, 1)
    assert lines[0].startswith(f"error: run folder '{copy}': model.safetensors is damaged: ")
    weights.write_bytes(whole[:-9])
    status, lines = run("eval", str(copy))
    assert (status, len(lines)) == (2, 1)
    assert lines[0].startswith(f"error: run folder '{copy}': model.safetensors cannot be read: ")
    state = next((copy / "checkpoint").glob("[0-9]*")) / "state.json"
    state.write_text(state.read_text()[:40])
    status, lines = run("train", "--quiet", "--resume", "--config", str(copy / "config.yaml"), "--set", f"output={copy}")
    assert (status, len(lines)) == (2, 1)
    assert lines[0].startswith(f"error: checkpoint '{state.parent}': cannot be read: ")


def test_data_that_changed_after_training(tmp_path: Path) -> None:
    train = written(tmp_path, log(), **{"training.epochs": 2})
    assert run(*train) == (0, [])
    planted_log(ROWS + 100, 40, 30).write_parquet(tmp_path / "log.parquet")  # the same values, otherwise frequent: other rows
    status, lines = run(*train, "--resume")
    assert (status, len(lines)) == (2, 1)
    assert "its checkpoint was trained on other data (fingerprint " in lines[0]
    for verb in ("eval", "export"):
        status, lines = run(verb, str(tmp_path / "run"))
        assert (status, len(lines)) == (2, 1)
        assert f"run folder '{tmp_path}/run': its weights do not fit the data as it is now" in lines[0]
    assert not (tmp_path / "run" / "generations").exists()
    assert run(*train, "--overwrite") == (0, [])


def test_splits_without_rows(tmp_path: Path) -> None:
    assert run(*written(tmp_path, log(), **{"data.split": {"validation": 0.0, "test": 0.0}})) == (0, [])
    line = f"error: run '{tmp_path}/run': its data has no test rows; give data.split.test"
    assert run("eval", str(tmp_path / "run")) == (2, [line])
    warning = "warning: no validation rows, so no calibrator: requests with bids will be refused"
    assert run("export", str(tmp_path / "run")) == (0, [warning])


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "current.json cannot be read: "), ("{}", "current.json must name a generation"), ('{"generation": 3}', "current.json must name"),
     ('{"generation": "gen-000009"}', "current.json names 'gen-000009', which is not there")],
)  # fmt: skip
def test_a_pointer_that_points_nowhere(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "current.json").write_text(text)
    status, lines = run("serve", str(tmp_path), "--port", "0")
    assert (status, len(lines)) == (2, 1)
    assert lines[0].startswith(f"error: generation folder '{tmp_path}': {said}")


def test_a_flipped_byte_is_not_served(good: Path, tmp_path: Path) -> None:
    shutil.copytree(good / "run" / "generations" / "gen-000001", tmp_path / "g")
    items = tmp_path / "g" / "items.npy"
    content = bytearray(items.read_bytes())
    content[-5] ^= 1
    items.write_bytes(content)
    line = f"error: generation '{tmp_path}/g': file 'items.npy' is not as it was written, its checksum differs; export it again"
    assert run("serve", str(tmp_path / "g"), "--port", "0") == (2, [line])


def test_a_port_in_use(good: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = f"error: port {port} on 127.0.0.1: address already in use; choose another with --port"
        assert run("serve", str(good / "run"), "--port", str(port)) == (2, [line])


# --- a full disk ----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def leave(disk: Path, kilobytes: int) -> Path:
    """Fill the disk but for so much; the file that fills it."""
    stat = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(bytes(stat.f_bavail * stat.f_frsize - 1024 * kilobytes))
    return filler


FULL = "No space left on device"


def test_a_disk_that_is_full_while_data_is_prepared(tmp_path: Path, small_disk: Path) -> None:
    planted_log(24_000).write_parquet(tmp_path / "log.parquet")
    train = written(tmp_path, **{"data.cache": str(small_disk / "cache")})
    for kilobytes in (600, 20):
        filler = leave(small_disk, kilobytes)
        assert run(*train) == (2, [f"error: cache '{small_disk}/cache': cannot be written: {FULL}"])
        assert not list((small_disk).glob("cache/*"))
        assert not list((small_disk).glob("cache/.*"))
        filler.unlink()
    planted_log(1000).write_parquet(tmp_path / "log.parquet")
    assert run(*train) == (0, [])


def test_a_disk_that_is_full_at_a_checkpoint(tmp_path: Path, small_disk: Path) -> None:
    """The first checkpoint, the weights, the config: then what was freed is enough to go on."""
    for kilobytes, name in ((150, "checkpoint"), (900, "model.safetensors"), (4, "config.yaml")):
        out = small_disk / f"run{kilobytes}"
        train = written(tmp_path, log(), output=str(out), model={"name": "mf", "width": 200 if name == "checkpoint" else 620})
        if name == "model.safetensors":  # room for the checkpoint, but not for the weights beside it
            train = written(tmp_path, log(), output=str(out), model={"name": "mf", "width": 600})
        filler = leave(small_disk, kilobytes)
        assert run(*train) == (2, [f"error: '{out}/{name}': {FULL}"])
        files = {p.name for p in out.rglob("*") if p.is_file()}
        assert files <= {".lock", "config.yaml", "history.jsonl", "tensors.safetensors", "state.json", "current"}, files
        assert ("current" in files) == (name == "model.safetensors")
        filler.unlink()
        assert run(*train, "--resume") == (0, [])
        shutil.rmtree(out)


def test_a_disk_that_is_full_in_export_and_predict(good: Path, tmp_path: Path, small_disk: Path) -> None:
    generations = small_disk / "generations"
    export = ["export", str(good / "run"), "--to", str(generations)]
    for kilobytes in (24, 12, 0):
        filler = leave(small_disk, kilobytes)
        assert run(*export) == (2, [f"error: '{generations}': {FULL}"])
        assert [p.name for p in generations.iterdir()] == [".lock"]
        filler.unlink()
    assert run(*export) == (0, [])
    filler = leave(small_disk, 0)
    assert run(*export) == (2, [f"error: '{generations}': {FULL}"])
    assert json.loads((generations / "current.json").read_text()) == {"generation": "gen-000001"}
    out = small_disk / "out.parquet"
    assert run("predict", str(good / "run"), str(good / "log.parquet"), str(out), "--quiet") == (2, [f"error: '{out}': {FULL}"])
    assert {p.name for p in small_disk.iterdir()} == {"filler", "generations"}
    filler.unlink()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "Error writing bytes to file. Detail: [errno 28] No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        pl.exceptions.ComputeError("parquet: File out of specification: underlying IO error: No space left on device (os error 28)"),
    ],
    ids=["arrow", "safetensors", "polars"],
)
def test_every_library_s_full_disk_is_the_same_error(error: Exception) -> None:
    with pytest.raises(OSError, match=FULL) as caught, writing(Path("somewhere")):
        raise error
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "somewhere")
    with pytest.raises(pa.ArrowInvalid, match="something else"), writing(Path("somewhere")):
        raise pa.ArrowInvalid("something else")


# --- killed and interrupted -----------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from prerank.cli import main
import prerank.data.prepare
sys.modules["prerank.data.prepare"].write = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
sys.argv[1:] = {arguments}
main()
"""


def test_killed_while_data_is_prepared(tmp_path: Path) -> None:
    train = written(tmp_path, log())
    code = KILLED.format(arguments=train)
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == -signal.SIGKILL
    left = list((tmp_path / "cache").iterdir())
    assert all(p.name.startswith(".") for p in left)
    assert run(*train) == (0, [])
    assert not {p.name.lstrip(".").split(".")[0] for p in left} - {p.name for p in (tmp_path / "cache").iterdir()}


@pytest.mark.parametrize("moment", ["prerank.data.prepare.write", "prerank.data.prepare.fit", "prerank.training.checkpoint.save_file"])
def test_interrupted_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    train = written(tmp_path, log())
    with monkeypatch.context() as patched:
        patched.setattr(sys.modules[moment.rpartition(".")[0]], moment.rpartition(".")[2], interrupt)
        assert run(*train) == (130, ["error: interrupted"])
    assert not list((tmp_path / "cache").glob(".*"))
    assert not list((tmp_path / "run").glob("checkpoint/*"))
    assert run(*train) == (0, [])


@pytest.mark.parametrize("moment", ["_write_ids", "save_encoders", "save_file", "_write_items"])
def test_interrupted_in_export(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    export = ["export", str(good / "run"), "--to", str(tmp_path / "g")]
    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["prerank.serving.export"], moment, interrupt)
        assert run(*export) == (130, ["error: interrupted"])
    assert [p.name for p in (tmp_path / "g").iterdir()] == [".lock"]
    assert run(*export) == (0, [])


def interrupt(*given: object, **named: object) -> None:
    """Ctrl-C, at this very place."""
    raise KeyboardInterrupt


def test_two_trainings_in_one_folder(tmp_path: Path) -> None:
    """The second one is refused by name while the first runs; then Ctrl-C, and --resume finishes."""
    long = {"training.epochs": 400, "training.patience": 400, "training.batch_size": 64}
    arguments = [sys.executable, "-m", "prerank", *written(tmp_path, log(), **long)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as first:
        deadline = time.monotonic() + 60
        while not (tmp_path / "run" / "history.jsonl").exists() and time.monotonic() < deadline:
            assert first.poll() is None
            time.sleep(0.05)
        status, lines = run(*written(tmp_path, **long))
        first.send_signal(signal.SIGINT)
        _, error = first.communicate(timeout=60)
    line = f"error: run folder '{tmp_path}/run': another training is running in it (process {first.pid}); wait for it, "
    assert (status, lines) == (2, [f"{line}or give another output folder"])
    assert first.returncode == 130
    assert error.count("\n") == 1
    assert error.startswith("error: stopped by SIGINT in epoch ")
    assert not (tmp_path / "run" / "model.safetensors").exists()
    line = f"error: run folder '{tmp_path}/run': its training has not finished; continue it with `prerank train --resume`"
    assert run("eval", str(tmp_path / "run")) == (2, [line])
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["training"]["epochs"] == 400
