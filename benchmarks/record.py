"""What a benchmark leaves behind: one JSON file with the machine, the versions, the command and the numbers.

    write(Path("results/memory.json"), benchmark="memory", seed=0, results={...})
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

VERSIONS = ("prerank", "torch", "numpy", "polars", "pyarrow")


def machine() -> dict[str, Any]:
    """What the numbers were taken on; the load says whether the machine was busy with something else."""
    cpu = platform.processor()
    listed = Path("/proc/cpuinfo")
    if listed.exists():
        cpu = next((line.split(":")[1].strip() for line in listed.read_text().splitlines() if line.startswith("model name")), cpu)
    return {"cpu": cpu, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2), "system": platform.system()}


def versions() -> dict[str, str]:
    """Python and the packages that matter."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in VERSIONS}


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
