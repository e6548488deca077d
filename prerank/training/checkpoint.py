"""Checkpoints that a killed run resumes from, bit for bit.

A checkpoint is one folder: tensors in safetensors, the rest in JSON, nothing pickled. It is written
under another name and then renamed, and `current` names the good one, so that a crash at any moment
leaves the last whole checkpoint in force.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from prerank.config import ConfigError
from prerank.data.errors import writing


class StaleCheckpointError(ConfigError):
    """A checkpoint that cannot be gone on from: the data are no longer those that it was trained on."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """tensors: everything that is a tensor, by 'part/name'; state: everything else (JSON)."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors below 'name/', without that prefix."""
        return {k.removeprefix(f"{name}/"): v for k, v in self.tensors.items() if k.startswith(f"{name}/")}


def save(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write a checkpoint below `folder` and make it the current one; the one before is removed afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    before = _current(folder)
    number = 1 if before is None else int(before.name) + 1
    temporary = folder / f"{number}.part"
    shutil.rmtree(temporary, ignore_errors=True)
    final = folder / str(number)
    try:
        temporary.mkdir()
        with writing(folder):
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary / "tensors.safetensors")
            (temporary / "state.json").write_text(json.dumps(state))
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    write_text(folder / "current", str(number))
    if before is not None:
        shutil.rmtree(before, ignore_errors=True)


def load(folder: Path) -> Checkpoint | None:
    """The current checkpoint below `folder`, or None when there is none. Raises ConfigError when it is damaged."""
    current = _current(folder)
    if current is None:
        return None
    try:
        return Checkpoint(load_file(current / "tensors.safetensors"), json.loads((current / "state.json").read_text()))
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"checkpoint '{current}': cannot be read: {error}; start again with --overwrite") from None


def write_text(path: Path, text: str) -> None:
    """Replace a file whole: never half-written under its name. Raises OSError, which names it."""
    with _replacing(path) as temporary, temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def save_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Weights as safetensors, replaced whole. Raises OSError, which names the file."""
    with _replacing(path) as temporary:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary sibling that takes the file's name at the end, or goes."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with writing(path):
            yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _current(folder: Path) -> Path | None:
    marker = folder / "current"
    if not marker.exists():
        return None
    found = folder / marker.read_text().strip()
    if not found.is_dir():
        raise ConfigError(f"checkpoint '{marker}': names '{found.name}', which is not there; start again with --overwrite")
    return found
