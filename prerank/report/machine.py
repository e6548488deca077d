"""What numbers were taken on: written beside them, so that they can be judged later."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

VERSIONS = ("prerank", "torch", "numpy", "polars", "pyarrow")


def machine() -> dict[str, Any]:
    """The processor; the load says whether the machine was busy with something else."""
    cpu = platform.processor()
    listed = Path("/proc/cpuinfo")
    if listed.exists():
        cpu = next((line.split(":")[1].strip() for line in listed.read_text().splitlines() if line.startswith("model name")), cpu)
    return {"cpu": cpu, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2), "system": platform.system()}


def versions() -> dict[str, str]:
    """Python and the packages that matter."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in VERSIONS}
