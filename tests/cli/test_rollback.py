"""prerank rollback: one line of what was done, or of what there is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from prerank.cli import app
from prerank.serving import current
from prerank.serving.delta import write_delta
from tests.serving.deltas import changes, learned
from tests.serving.world import published, world

run = CliRunner().invoke


def test_rollback(tmp_path: Path) -> None:
    data, folder = world(), tmp_path / "generations"
    for seed in range(3):
        published(folder, data, seed=seed)
    assert run(app, ["rollback", str(tmp_path)]).stdout == "gen-000002 is in force, gen-000003 was\n"
    assert run(app, ["rollback", str(folder), "--to", "gen-000003"]).stdout == "gen-000003 is in force, gen-000002 was\n"
    assert run(app, ["rollback", str(folder), "--to", "3"]).stdout == "gen-000003 is in force already; nothing changed\n"
    assert run(app, ["rollback", str(folder), "--to", "1"]).exit_code == 0
    assert current(folder).name == "gen-000001"
    nothing = run(app, ["rollback", str(folder)])
    assert nothing.exit_code == 2
    assert "no generation is older than gen-000001" in nothing.stderr
    assert run(app, ["rollback", str(folder), "--to", "9"]).exit_code == 2


def test_the_one_in_force_loses_its_deltas_once(tmp_path: Path) -> None:
    data = world()
    made = published(tmp_path, data)
    for seed in range(2):
        after = learned(made, seed)
        write_delta(tmp_path, changes(made, after, data, np.arange(3)))
        made = after
    before = (tmp_path / "current.json").read_text()
    assert run(app, ["rollback", str(tmp_path), "--to", "1"]).stdout == "gen-000001 is in force as it was exported, without its 2 deltas\n"
    current_json = (tmp_path / "current.json").read_text()
    assert current_json != before
    assert run(app, ["rollback", str(tmp_path), "--to", "1"]).stdout == "gen-000001 is in force already; nothing changed\n"
    assert (tmp_path / "current.json").read_text() == current_json
