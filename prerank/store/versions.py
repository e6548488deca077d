"""What rows of a MemoryStore were before: a chain of versions behind each row, newest first, in one pool.

A version goes into the pool when a later tick's first blend replaces it, so that the pool is in order of time and forgets from its front.
Pool and chains are buffers, so that a model and its copy that predicts share them; they are no weights, and no state_dict has them:
a checkpoint takes `tensors` and `load`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from prerank.store.contract import Memory
from prerank.store.history import ALWAYS, History

POOL = ("vectors", "counts", "last", "ticks", "earlier", "until")
ROOM = 1024  # versions that the pool has room for, at least


class Versions(nn.Module):
    """Versions are numbered from 0 on, for ever; the pool holds those from `start` to `end`, the first of which has number `base`.

    tick      [rows] when each row's newest state was blended first
    before    [rows] number of the version before it; -1: none
    ends      base, start, end, and the newest tick of all
    """

    def __init__(self, rows: int, width: int, history: History) -> None:
        super().__init__()
        self.history = history
        numbers = torch.zeros(0, dtype=torch.int64)
        held = {"tick": torch.full((rows,), ALWAYS), "before": torch.full((rows,), -1), "ends": torch.tensor([0, 0, 0, ALWAYS]),
                "vectors": torch.zeros(0, width), "counts": torch.zeros(0, dtype=torch.int32), "last": numbers, "ticks": numbers.clone(),
                "earlier": numbers.clone(), "until": numbers.clone()}  # fmt: skip
        for name, value in held.items():
            self.register_buffer(name, value, persistent=False)
        self.tick: Tensor
        self.before: Tensor
        self.ends: Tensor
        self.ticks: Tensor
        self.earlier: Tensor
        self.until: Tensor

    def read(self, ids: Tensor, newest: Memory, tick: int) -> Memory:
        """[n] rows and what they hold -> what they held before `tick`; `newest` is written over."""
        base, start, _, _ = self.ends.tolist()
        at = (self.tick[ids] >= tick).nonzero().squeeze(1)  # places in ids whose state is too new
        number = self.before[ids[at]]
        late = (number >= start).nonzero().squeeze(1)  # places in `at` whose version may be too new as well
        while len(late):
            slot = number[late] - base
            new = self.ticks[slot] >= tick
            late, slot = late[new], slot[new]
            number[late] = self.earlier[slot]
            late = late[number[late] >= start]
        there = number >= start
        slot = number[there] - base
        for found, name in zip(newest, Memory._fields, strict=True):
            found[at[~there]] = 0
            found[at[there]] = self._buffers[name][slot].to(found.dtype)  # type: ignore[index]
        return newest

    def keep(self, ids: Tensor, old: Memory, known: int) -> None:
        """Distinct rows [n] are about to be blended at a time that knows `known`: what they hold [n] goes into the pool."""
        tick = max(self.history.at(known), int(self.ends[3]))
        self._forget(tick)
        replaced = (old.counts > 0) & (self.tick[ids] < tick)
        rows, n = ids[replaced], int(replaced.sum())
        base, _, end, _ = self._room(n)
        new = (*(part[replaced] for part in old), self.tick[rows], self.before[rows], torch.tensor(tick))
        for name, value in zip(POOL, new, strict=True):
            self._buffers[name][end - base : end - base + n] = value  # type: ignore[index]
        self.before[rows] = torch.arange(end, end + n, device=rows.device)
        self.tick[ids] = tick
        self.ends[2] = end + n

    def drop(self, ids: Tensor) -> None:
        """Rows [n] are what they are now at every moment."""
        self.tick[ids] = ALWAYS
        self.before[ids] = -1

    def clear(self) -> None:
        """As at birth."""
        self.tick.fill_(ALWAYS)
        self.before.fill_(-1)
        self.ends.copy_(torch.tensor([0, 0, 0, ALWAYS]))

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        base, start, end, newest = self.ends.tolist()
        pool = {name: self._buffers[name][start - base : end - base].clone() for name in POOL}  # type: ignore[index]
        return {"tick": self.tick, "before": self.before, "ends": torch.tensor([start, start, end, newest]), **pool}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`."""
        self.clear()
        n = len(tensors["until"])
        self._room(n)
        for name in ("tick", "before", "ends"):
            self._buffers[name].copy_(tensors[name])  # type: ignore[union-attr]
        for name in POOL:
            self._buffers[name][:n] = tensors[name]  # type: ignore[index]

    def _forget(self, tick: int) -> None:
        """Let go of what nobody may ask for any more."""
        base, start, end, newest = self.ends.tolist()
        if tick > newest:
            unasked = torch.searchsorted(self.until[start - base : end - base], self.history.oldest(tick))
            self.ends[1], self.ends[3] = start + unasked, tick

    def _room(self, more: int) -> list[int]:
        """The ends, when the pool has room for so many more: it moves to its front, or is made twice as large."""
        base, start, end, _ = self.ends.tolist()
        size, live = len(self.until), end - start
        if end - base + more > size:
            for name in POOL:
                pool: Tensor = self._buffers[name]  # type: ignore[assignment]
                kept = pool[start - base : end - base].clone()
                if 2 * (live + more) > size:
                    pool.resize_(max(2 * (live + more), ROOM), *pool.shape[1:])
                pool[:live] = kept
            self.ends[0] = start
        found: list[int] = self.ends.tolist()
        return found
