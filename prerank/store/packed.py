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

Value = bytes | memoryview
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


def unpack(values: Sequence[Value | None], width: int, store: str, tick: int | None = None) -> Memory:
    """Values as they were stored, None: never seen -> newest states, or those before a tick.

    Raises StoreError for values of another width; `store` names whose they are.
    """
    size = layout(width).itemsize
    wrong = next((v for v in values if v is not None and len(v) != size and len(v) % (size + TICK)), None)
    if wrong is not None:
        raise StoreError(f"store '{store}': a value must have {size} bytes (K = {width}), or as many and {TICK} for each state; "
                         f"one has {len(wrong)}")  # fmt: skip
    empty = bytes(size)
    if tick is None:
        states: list[Value] = [empty if v is None else v[:size] for v in values]
    else:
        states = [empty if v is None else _before(v, size, tick) for v in values]
    rows = np.frombuffer(b"".join(states), layout(width))
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
    oldest, end, step = history.oldest(tick), len(older), size + TICK
    while end > step and _tick(older, end - step - TICK) < oldest:  # nobody may ask for what lies behind one that is too old already
        end -= step
    return state + struct.pack("<q", tick) + older[:end]


def _unseen(held: bytes) -> bool:
    return held[:8] == bytes(8)


def _tick(chain: Value, at: int) -> int:
    found: int = struct.unpack_from("<q", chain, at)[0]
    return found


def _before(chain: Value, size: int, tick: int) -> Value:
    """The newest state before a tick, zeros where there is none."""
    if len(chain) == size:
        return chain
    low, high, step = 0, len(chain) // (size + TICK), size + TICK  # states, newest first: those before `low` are too new
    while low < high:
        middle = (low + high) // 2
        if _tick(chain, middle * step + size) >= tick:
            low = middle + 1
        else:
            high = middle
    return chain[low * step : low * step + size] or bytes(size)
