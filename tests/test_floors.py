"""docs/architecture.md, "Floors": an ast walk over every import of the package."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "prerank"
FLOORS = {
    "__main__": 7,
    "cli": 6,
    "build": 5, "run": 5, "report": 5, "ensembles": 5, "pruning": 5, "tuning": 5, "leaderboard": 5, "teachers": 5, "retrieval": 5,
    "consistency": 5, "replay": 5, "ablation": 5, "experiments": 5, "online": 5,
    "training": 4, "serving": 4, "datasets": 4, "synergy": 4,
    "towers": 3, "rankers": 3, "losses": 3, "data": 3, "stream": 3,
    "layers": 2, "index": 2, "batch": 2,
    "schema": 1, "metrics": 1, "config": 1, "store": 1,
}  # fmt: skip
# On one floor, and without a way back.
SIDEWAYS = {("config", "schema"), ("layers", "batch"), ("run", "build"), ("ensembles", "run"), ("pruning", "run"), ("pruning", "build"),
            ("tuning", "run"), ("tuning", "build"), ("leaderboard", "run"), ("leaderboard", "build"),
            ("leaderboard", "report"), ("teachers", "run"), ("teachers", "build"), ("teachers", "ensembles"),
            ("retrieval", "run"), ("retrieval", "build"),
            ("replay", "build"), ("replay", "report"),
            ("ablation", "replay"), ("ablation", "run"), ("ablation", "leaderboard"), ("ablation", "report"),
            ("experiments", "report"), ("online", "build"), ("online", "run"), ("online", "report"),
            ("online", "experiments"), ("online", "replay"),
            ("consistency", "run"), ("consistency", "ensembles"), ("consistency", "report")}  # fmt: skip
FORBIDDEN = {
    "losses": {"towers", "layers", "data", "config", "schema", "metrics"},
    "serving": {"training", "losses", "towers", "rankers"},
    "training": {"towers", "rankers", "serving", "losses"},
    "index": {"batch", "layers", "config", "metrics"},
    "synergy": {"towers", "rankers", "losses", "data"},
    "towers": {"store"},
    "layers": {"store"},
    "stream": {"batch", "layers", "index", "store", "metrics"},
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Rooms of ours that a file imports, anywhere in it, typing-only imports included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the room they go to"
            names = [f"{node.module}.{a.name}" for a in node.names]
        found |= {n.split(".")[1] for n in names if n.startswith("prerank.")}
        assert not any(n == "benchmarks" or n.startswith("benchmarks.") for n in names), f"{path} imports benchmarks"
    return found & set(FLOORS) | {n for n in found if (PACKAGE / n).is_dir() or (PACKAGE / f"{n}.py").exists()}


FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_run_down(path: Path) -> None:
    own = room(path)
    assert own in FLOORS, f"{path}: a room without a floor; give it one here and in docs/architecture.md"
    for other in imports(path) - {own}:
        assert other in FLOORS, f"{path} imports {other}, which has no floor"
        down = FLOORS[other] < FLOORS[own] or (own, other) in SIDEWAYS
        assert down, f"{path.relative_to(ROOT)} (floor {FLOORS[own]}) imports {other} (floor {FLOORS[other]}): imports only run down"
        assert other not in FORBIDDEN.get(own, set()), f"{path.relative_to(ROOT)} imports {other}: a never of docs/architecture.md"


def test_no_room_is_called_utils() -> None:
    assert not [p for p in PACKAGE.rglob("*") if p.stem in ("utils", "helpers", "misc", "common")]


def test_importing_everything_does_nothing() -> None:
    """No output, no file, no thread, whatever is imported."""
    modules = [".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in FILES]
    code = f"import importlib, threading\nfor m in {modules!r}: importlib.import_module(m)\n"
    code += "assert threading.active_count() == 1, threading.enumerate()"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
