"""A file that is there whole or not at all: temporary name, fsync, rename; a checksum tells of a disk that lied."""

from __future__ import annotations

import os
import zlib
from contextlib import suppress
from pathlib import Path

_MAGIC = b"prerank state 1\n"


class SavedError(ValueError):
    """A saved file is not what was written; the message names it."""


def save(path: Path, data: bytes) -> None:
    """Raises OSError that names the file, e.g. when the disk is full; the file before then stays."""
    temporary = path.with_name(f"{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(_MAGIC + zlib.crc32(data).to_bytes(4, "little") + data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from None


def load(path: Path) -> bytes | None:
    """What was saved last; None where nothing was. Raises SavedError."""
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        return None
    data = found[len(_MAGIC) + 4 :]
    if found[: len(_MAGIC)] != _MAGIC or zlib.crc32(data).to_bytes(4, "little") != found[len(_MAGIC) : len(_MAGIC) + 4]:
        raise SavedError(f"'{path}': is not what was saved there; remove it to start from the oldest events that the log has")
    return data
