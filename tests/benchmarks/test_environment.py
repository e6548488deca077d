from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import environment


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that would have been run; nothing is installed. The first one fails."""
    commands: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        failed = len(commands) == 1
        return subprocess.CompletedProcess(command, int(failed), "ERROR: No matching distribution\nbye" if failed else "")

    monkeypatch.setenv("PRERANK_CACHE", str(tmp_path))
    monkeypatch.setattr(environment.subprocess, "run", run)
    monkeypatch.setattr(environment.venv, "create", lambda folder, with_pip: folder.mkdir(parents=True, exist_ok=True))
    return commands


def test_a_failed_installation_says_why_and_is_tried_again_once_only(pip: list[list[str]]) -> None:
    with pytest.raises(environment.UnavailableError, match="thing==1 cannot be installed: ERROR: No matching distribution"):
        environment.python_with("thing==1", name="thing")
    python = environment.python_with("thing==1", name="thing")
    assert environment.python_with("thing==1", name="thing") == python
    assert len(pip) == 2
    assert pip[1][:1] == [str(python)]
    assert pip[1][-2:] == ["thing==1", f"torch=={torch.__version__.split('+')[0]}"]
