"""prerank rollback: one line of what was done, or of what there is not."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from prerank.cli import app
from prerank.serving import current
from tests.serving.world import published, world

run = CliRunner().invoke


def test_rollback(tmp_path: Path) -> None:
    data, folder = world(), tmp_path / "generations"
    for seed in range(3):
        published(folder, data, seed=seed)
    assert run(app, ["rollback", str(tmp_path)]).stdout == "gen-000002 is in force, gen-000003 was\n"
    assert run(app, ["rollback", str(folder), "--to", "gen-000003"]).stdout == "gen-000003 is in force, gen-000002 was\n"
    assert run(app, ["rollback", str(folder), "--to", "1"]).exit_code == 0
    assert current(folder).name == "gen-000001"
    nothing = run(app, ["rollback", str(folder)])
    assert nothing.exit_code == 2
    assert "no generation is older than gen-000001" in nothing.stderr
    assert run(app, ["rollback", str(folder), "--to", "9"]).exit_code == 2
