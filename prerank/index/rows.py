"""How item rows lie on disk and in memory: one contiguous array, each row padded to 64 bytes.

    fp32   float32          exact
    bf16   uint16           the upper half of a float32, rounded to nearest even
    int8   int8 and a scale a row: number = stored * scale; biases are kept apart so that the scale never crushes them

A row that starts on a cache line is fetched with the fewest lines (an unaligned int8 row is about 3x slower to score).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

DType = Literal["fp32", "bf16", "int8"]
DTYPES: dict[DType, np.dtype] = {"fp32": np.dtype(np.float32), "bf16": np.dtype(np.uint16), "int8": np.dtype(np.int8)}
LINE = 64  # bytes of a cache line


def padded(width: int, dtype: DType) -> int:
    """Numbers a stored row of `width` has: 70 floats take 80 (five lines of 16)."""
    per_line = LINE // DTYPES[dtype].itemsize
    return -(-width // per_line) * per_line


def pack(flat: np.ndarray, dtype: DType) -> tuple[np.ndarray, np.ndarray | None]:
    """float32 [n, width] -> stored rows [n, padded] and, for int8, their scales [n]."""
    flat = np.ascontiguousarray(flat, dtype=np.float32)
    rows = np.zeros((len(flat), padded(flat.shape[1], dtype)), DTYPES[dtype])
    scales = None
    if dtype == "fp32":
        rows[:, : flat.shape[1]] = flat
    elif dtype == "bf16":
        bits = flat.view(np.uint32)
        rows[:, : flat.shape[1]] = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    else:
        scales = (np.abs(flat).max(1, initial=0) / 127).astype(np.float32)
        rows[:, : flat.shape[1]] = np.rint(flat / np.where(scales > 0, scales, 1)[:, None])
    return rows, scales


def unpack(rows: np.ndarray, scales: np.ndarray | None, width: int, dtype: DType) -> np.ndarray:
    """Stored rows -> float32 [n, width]; what the kernel does on the fly."""
    rows = rows[:, :width]
    if dtype == "bf16":
        return (rows.astype(np.uint32) << 16).view(np.float32)
    if dtype == "int8":
        assert scales is not None
        return rows.astype(np.float32) * scales[:, None]
    return np.asarray(rows, np.float32)


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros that start on a cache line; numpy itself promises 16 bytes only."""
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.zeros(size + LINE, np.uint8)
    start = -raw.ctypes.data % LINE
    return raw[start : start + size].view(dtype).reshape(shape)
