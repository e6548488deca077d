"""What a benchmark leaves behind: one JSON file with the machine, the versions, the command and the numbers.

    write(Path("results/memory.json"), benchmark="memory", seed=0, results={...})
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from prerank.report.machine import machine, versions


def write(path: Path, *, benchmark: str, seed: int, results: Any, **more: Any) -> None:
    """Write the record whole or not at all."""
    command = shlex.join(["python", "-m", f"benchmarks.{benchmark}", *sys.argv[1:]])
    where = {"machine": machine(), "versions": versions()}
    record = {"benchmark": benchmark, "command": command, "seed": seed, **where, **more, "results": results}
    text = json.dumps(record, indent=1) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(text)
    os.chmod(file.name, 0o644)  # a temporary file is private at first
    os.replace(file.name, path)
