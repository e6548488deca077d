"""A stored value as bytes, the same in LMDB and Redis: count, last (int64) and the vector (float32), little-endian, 16 + 4 K bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from prerank.store.contract import Memory, StoreError


def layout(width: int) -> np.dtype:
    """Of one value."""
    return np.dtype([("count", "<i8"), ("last", "<i8"), ("vector", "<f4", (width,))])


def pack(memory: Memory) -> list[bytes]:
    """One value an id."""
    rows = np.empty(len(memory.counts), layout(memory.vectors.shape[1]))
    rows["count"], rows["last"] = memory.counts.cpu().numpy(), memory.last.cpu().numpy()
    rows["vector"] = memory.vectors.detach().float().cpu().numpy()
    flat, size = rows.tobytes(), rows.dtype.itemsize
    return [flat[i : i + size] for i in range(0, len(flat), size)]


def unpack(values: Sequence[bytes | None], width: int, store: str) -> Memory:
    """Values as they were stored, None: never seen. Raises StoreError for values of another width; `store` names whose they are."""
    size = layout(width).itemsize
    empty = bytes(size)
    wrong = next((v for v in values if v is not None and len(v) != size), None)
    if wrong is not None:
        raise StoreError(f"store '{store}': a value must have {size} bytes (K = {width}); one has {len(wrong)}")
    rows = np.frombuffer(b"".join(empty if v is None else v for v in values), layout(width))
    return Memory(*(torch.from_numpy(rows[name].copy()) for name in ("vector", "count", "last")))
