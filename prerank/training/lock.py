"""A folder belongs to one training at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prerank.data.errors import writing


class FolderInUseError(ValueError):
    """Another process trains in this folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the kernel frees it when the process ends, however it ends. Raises FolderInUseError."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise FolderInUseError(
                f"run folder '{folder}': another training is running in it (process {file.read().strip() or 'unknown'}); "
                "wait for it, or give another output folder"
            ) from None
        with writing(folder):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield
