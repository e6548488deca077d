"""An environment of its own for a baseline that must not meet our packages."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import torch


class UnavailableError(RuntimeError):
    """The baseline cannot be installed here; the message says why."""


def python_with(*packages: str, name: str) -> Path:
    """The interpreter of a virtual environment in the user's cache that holds the packages and our torch version.

    Made once; a half-made one is finished by the next call. Raises UnavailableError.
    """
    version = torch.__version__.split("+")[0]
    root = Path(os.environ.get("PRERANK_CACHE") or Path.home() / ".cache" / "prerank").expanduser()
    folder = root / "benchmarks" / f"{name}-torch-{version}"
    python, whole = folder / "bin" / "python", folder / "whole"
    if whole.exists():
        return python
    venv.create(folder, with_pip=True)
    # torch pinned exactly: a looser one brings gigabytes of GPU packages.
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages, f"torch=={version}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        reason = next((line for line in reversed(done.stdout.splitlines()) if "ERROR" in line), f"pip ended with {done.returncode}")
        raise UnavailableError(f"{' '.join(packages)} cannot be installed: {reason}")
    whole.touch()
    return python


def here() -> Path:
    """Our own interpreter."""
    return Path(sys.executable)
