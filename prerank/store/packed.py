"""A stored value as bytes, the same in LMDB and Redis: count, last (int64) and the vector (float32), little-endian, 16 + 4 K bytes.

In a store with a history a value is a chain: that newest state and its tick (int64), then older ones likewise, newest first, so that one
read brings all. One without a tick was written without a time, and was always so.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import torch

from prerank.store.contract import Memory, StoreError
from prerank.store.history import ALWAYS, History

TICK = 8  # bytes
FOREVER = struct.pack("<q", ALWAYS)


def layout(width: int) -> np.dtype:
    """Of one state."""
    return np.dtype([("count", "<i8"), ("last", "<i8"), ("vector", "<f4", (width,))])


def pack(memory: Memory) -> list[bytes]:
    """One state an id."""
    rows = np.empty(len(memory.counts), layout(memory.vectors.shape[1]))
    rows["count"], rows["last"] = memory.counts.cpu().numpy(), memory.last.cpu().numpy()
    rows["vector"] = memory.vectors.detach().float().cpu().numpy()
    flat, size = rows.tobytes(), rows.dtype.itemsize
    return [flat[i : i + size] for i in range(0, len(flat), size)]


def unpack(values: Sequence[bytes | None], width: int, store: str, tick: int | None = None) -> Memory:
    """Values as they were stored, None: never seen -> newest states, or those before a tick.

    Raises StoreError for values of another width; `store` names whose they are.
    """
    size = layout(width).itemsize
    wrong = next((v for v in values if v is not None and len(v) != size and len(v) % (size + TICK)), None)
    if wrong is not None:
        raise StoreError(f"store '{store}': a value must have {size} bytes (K = {width}), or as many and {TICK} for each state; "
                         f"one has {len(wrong)}")  # fmt: skip
    if tick is None:
        empty = bytes(size)
        rows = np.frombuffer(b"".join(empty if v is None else v[:size] for v in values), layout(width))
    else:
        rows = _before(values, layout(width), tick)
    return Memory(*(torch.from_numpy(rows[name].copy()) for name in ("vector", "count", "last")))


def chained(held: bytes | None, state: bytes, tick: int | None, history: History | None) -> bytes:
    """What is stored of an id whose newest state becomes `state` at a tick (None: without a time); what nobody may ask for any more is
    left out."""
    size = len(state)
    if held is None or _unseen(held):
        held = b""
    if tick is None or history is None:
        return state + held[size:]
    older = held if len(held) != size else held + FOREVER
    if older and _tick(older, size) >= tick:
        return state + older[size:]
    oldest, end, step = history.oldest(tick), 0, size + TICK
    while end < len(older):
        end += step
        if _tick(older, end - TICK) < oldest:
            break
    return state + struct.pack("<q", tick) + older[:end]


def _unseen(held: bytes) -> bool:
    return held[:8] == bytes(8)


def _tick(chain: bytes, at: int) -> int:
    found: int = struct.unpack_from("<q", chain, at)[0]
    return found


def _before(values: Sequence[bytes | None], state: np.dtype, tick: int) -> np.ndarray:
    """The newest state before a tick of each value, zeros where there is none."""
    chain = np.dtype([("state", state), ("tick", "<i8")])
    size = chain.itemsize
    chains = [b"" if v is None else v + FOREVER if len(v) == state.itemsize else v for v in values]
    rows = np.frombuffer(b"".join(chains), chain)
    owner = np.repeat(np.arange(len(chains)), [len(c) // size for c in chains])
    seen = rows["tick"] < tick
    ids, first = np.unique(owner[seen], return_index=True)
    found = np.zeros(len(chains), state)
    found[ids] = rows["state"][seen][first]
    return found
