from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

import pytest

from benchmarks.record import write


def test_says_where_the_numbers_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--folder", "a b"])
    path = tmp_path / "results" / "memory.json"
    write(path, benchmark="memory", seed=3, results=[1.5], rounds=2)
    found = json.loads(path.read_text())
    assert found["command"] == "python -m benchmarks.memory --folder 'a b'"
    assert (found["benchmark"], found["seed"], found["results"], found["rounds"]) == ("memory", 3, [1.5], 2)
    assert found["versions"]["python"] == platform.python_version()
    assert found["machine"]["cores"] >= 1


def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    write(path, benchmark="memory", seed=0, results=1)
    with pytest.raises(TypeError):
        write(path, benchmark="memory", seed=0, results=object())
    assert json.loads(path.read_text())["results"] == 1
    assert list(tmp_path.iterdir()) == [path]
