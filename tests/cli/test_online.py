"""prerank online: what it tells while it learns."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from prerank.cli import app
from prerank.config import dump
from tests.online.test_tensorboard import fields, records
from tests.online.world import N, config, fill, frame


@pytest.fixture
def settings(tmp_path: Path) -> str:
    log = frame()
    log.write_parquet(tmp_path / "log.parquet")
    fill(tmp_path, log)
    (tmp_path / "online.yaml").write_text(dump(config(tmp_path)))
    return str(tmp_path / "online.yaml")


def test_lines_prometheus_and_tensorboard(settings: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["online", "-c", settings, "--until-empty", "--metrics-port", "0", "--tensorboard"])
    assert done.exit_code == 0, done.output
    assert "metrics: http://127.0.0.1:" in done.stderr
    assert f"rows {N:,}  rows/s " in done.stderr
    assert "click AUC " in done.stderr
    (path,) = (tmp_path / "run" / "tensorboard").iterdir()
    last = dict(fields(records(path)[-1]))
    assert last[2] == N
    again = CliRunner().invoke(app, ["online", "-c", settings, "--until-empty", "--overwrite", "-q"])
    assert again.exit_code == 0, again.output
    assert not path.exists()


def test_quiet_tells_the_result_alone(settings: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["online", "-c", settings, "--until-empty", "-q"])
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{tmp_path / 'run'}: {N:,} rows in ")
    assert not (tmp_path / "run" / "tensorboard").exists()
