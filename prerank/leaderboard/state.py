"""What is known of one training of a board: a small JSON in its run folder, written whole when it has ended.

finished   measured on test; its test logits, labels and users lie beside it as .npy
diverged   its loss became NaN or infinite; the same settings would do so again, so it is not tried again
failed     something else went wrong; the next call tries it again
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from prerank.training.checkpoint import write_text

FILE = "leaderboard.json"
ARRAYS = ("logits", "labels", "users")


@dataclass(frozen=True, slots=True)
class State:
    """See the module's first lines.

    why        of what is not finished: one line
    measured   of what is finished: metrics of each label on test, parameters, speed, epochs
    """

    status: Literal["finished", "diverged", "failed"]
    why: str | None = None
    measured: dict[str, Any] = field(default_factory=dict)

    @property
    def final(self) -> bool:
        """Not to be tried again."""
        return self.status != "failed"

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / FILE, json.dumps(asdict(self), indent=1))


def known(folder: Path) -> State | None:
    """How a training ended, or None when it has not."""
    try:
        return State(**json.loads((folder / FILE).read_text()))
    except (FileNotFoundError, ValueError, TypeError):  # one that cannot be read counts as none: it is made again
        return None


def keep(folder: Path, **arrays: np.ndarray) -> None:
    """Write test arrays beside the state, each whole or not at all."""
    for name, array in arrays.items():
        path = folder / f"test-{name}.npy"
        temporary = path.with_name(f".{path.name}")
        np.save(temporary, array)  # ends in .npy, so numpy adds nothing
        os.replace(temporary, path)


def kept(folder: Path, name: str) -> np.ndarray:
    """logits [n, T], labels [n, T] or users [n] of the test rows, in the log's order."""
    found: np.ndarray = np.load(folder / f"test-{name}.npy")
    return found
