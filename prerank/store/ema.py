"""An exponential moving average over a store: how a cache of CTS or CMS is written, and the clock that ages are told by.

    mode 'ema'    new = decay old + (1 - decay) mean of the batch           CS3 (arXiv 2604.19269, 2026): decay .8 on the OLD value
    mode 'mean'   new = mean of all that was ever written                   ours: no id forgets
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prerank.store.contract import Memory, Store, check_decay
from prerank.store.moment import Moment
from prerank.store.stamp import Stamp

HOUR = 3_600_000  # milliseconds


class EmaCache(nn.Module):
    """Reads and blends; see the module's first lines.

    store       a MemoryStore becomes part of the model that holds the cache, others lie outside it
    decay       of the old value, between 0 and 1; mode 'mean' looks away from it
    normalise   vectors are brought to length 1 before they are written

    `clock` is the latest time that was ever written at, so that an id's age is known without asking what time it is: the
    same in training, in replay, and in a generation. Where the log has no times, a write is an hour (our choice).
    `moment`, where a stream's trainer sets one, is when its batch is learned: it is read as of then, ages are told by then, and what
    is written bears the offsets of its rows.
    """

    def __init__(self, store: Store, decay: float = 0.8, mode: Literal["ema", "mean"] = "ema", normalise: bool = False) -> None:
        super().__init__()
        if mode not in ("ema", "mean"):
            raise ValueError(f"mode: must be ema or mean; got '{mode}'")
        check_decay(decay)
        self.store = store
        self.decay = decay if mode == "ema" else None
        self.normalise = normalise
        self.moment: Moment | None = None
        self._found: tuple[Moment, Tensor, Memory] | None = None  # the last read of a moment: who predicts and who learns read the same
        self.register_buffer("clock", torch.zeros((), dtype=torch.int64))
        self.clock: Tensor

    @property
    def width(self) -> int:
        """K of the vectors."""
        return self.store.width

    @torch.no_grad()
    def read(self, ids: Tensor) -> Memory:
        """[n] -> what is remembered of them; nothing of it wants a gradient."""
        if self.moment is None:
            return self.store.get(ids)
        if self._found is None or self._found[0] is not self.moment or not torch.equal(self._found[1], ids):
            with torch.inference_mode(False):  # whatever reads it first, a gradient may come by it
                self._found = self.moment, ids, self.store.get(ids, self.moment.asof)
        return self._found[2]

    def age(self, memory: Memory) -> Tensor:
        """Hours from when an id was last written to the moment, or to the latest write of all; 0 for one never seen.  # [n] float32"""
        now = self.clock if self.moment is None or self.moment.asof is None else self.moment.asof
        hours = (now - memory.last).clamp(min=0).float() / HOUR
        return hours * (memory.counts > 0)

    @torch.no_grad()
    def write(self, ids: Tensor, vectors: Tensor, ts: Tensor | None = None, rows: Tensor | None = None) -> None:
        """ids [n], vectors [n, K], ts [n] milliseconds or None, the batch's rows [n] that they are of. Raises ValueError for vectors of
        another width or with NaN."""
        if vectors.shape[1] != self.width:
            raise ValueError(f"cached vectors: must be {self.width} wide; got {vectors.shape[1]}")
        vectors = vectors.detach().float()
        if not torch.isfinite(vectors.sum()) and not torch.isfinite(vectors).all():  # one pass where all is well, which is always
            raise ValueError("cached vectors: must be finite; got NaN or infinity")
        if ts is None:
            self.clock += HOUR
            ts = self.clock.expand(len(ids))
        elif len(ts):
            torch.maximum(self.clock, ts.max(), out=self.clock)
        self._found = None
        self.store.blend(ids, F.normalize(vectors, dim=1) if self.normalise else vectors, self.decay, ts, self._stamp(rows))

    @torch.no_grad()
    def forget(self, ids: Tensor) -> None:
        """[n] are ids that were never seen."""
        zeros = ids.new_zeros(len(ids), dtype=torch.int64)
        self.store.put(ids, Memory(torch.zeros(len(ids), self.width, device=ids.device), zeros, zeros))

    def reset(self) -> None:
        """As at birth."""
        self.store.clear()
        self.clock.zero_()

    def _stamp(self, rows: Tensor | None) -> Stamp | None:
        if self.moment is None:
            return None
        assert rows is not None, "a moment's vectors are of rows"
        return Stamp(self.moment.writer, self.moment.offsets.to(rows.device)[rows], self.moment.known)
