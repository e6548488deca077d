"""Memory-mapped columns: `.npy` files that are written batch by batch and read without copying."""

from __future__ import annotations

import mmap
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import DTypeLike, NDArray

from prerank.data.errors import DataError


def file_of(feature: str) -> str:
    """A feature's file name, whatever characters its name holds."""
    return f"{quote(feature, safe='')}.npy"


class Writer:
    """Appends arrays to one `.npy` file whose shape is known from the start (plain writes: a growing map would count as memory)."""

    def __init__(self, path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
        self.dtype, self.shape, self.written = np.dtype(dtype), shape, 0
        self._file = path.open("wb")
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def append(self, rows: NDArray[Any]) -> None:
        """Rows [n, ...] of the given type."""
        assert rows.shape[1:] == self.shape[1:]
        assert rows.dtype == self.dtype
        self._file.write(np.ascontiguousarray(rows).data)
        self.written += len(rows)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
        assert kind is not None or self.written == self.shape[0]


def open_column(path: Path) -> NDArray[Any]:
    """A read-only view on the file. Raises DataError when it is missing or not whole."""
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"column '{path}': cannot be read: {error}") from None


def release(column: NDArray[Any]) -> None:
    """Let go of the pages of `open_column` that were read, so that a walk over a long column keeps little of it resident."""
    held = getattr(column.base, "_mmap", None)
    if held is not None and hasattr(mmap, "MADV_DONTNEED"):
        held.madvise(mmap.MADV_DONTNEED)
