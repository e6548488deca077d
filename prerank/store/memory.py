"""A store in this process: dense tensors with a row for every id from 0 on, which are buffers of the model that holds it.

As buffers they are saved with weights and checkpoints, exported with a generation, and go where the model goes. An id takes
4 K + 12 bytes, seen or not: 268 bytes at K = 64, so that 10^8 ids want 26.8 GB. Of 10^7, reading 8,192 took 3 ms and blending 19.
With a history it takes 16 more, and 4 K + 36 for every state that a read may still ask for. Of 1,024 ids, with ticks of a
minute and a batch every 5 s (`benchmarks/store_history.py`): blending took 0.7 ms (0.4 without history), reading 0.1, as of 90 s ago 0.5
and as of ten minutes ago 1.1.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prerank.store.contract import Memory, averaged, blended, check_decay, check_width
from prerank.store.history import History, check_history, ticked
from prerank.store.stamp import Done, Marker, Stamp
from prerank.store.versions import Versions


class MemoryStore(nn.Module):
    """See the module's first lines; its ids are rows of a vocabulary.

    rows      ids are 0 .. rows - 1
    width     K
    history   how far back it can be read; None: only the newest is kept

    The newest states are in the state_dict. Older ones, whose number varies, and how far each writer has come are not: whoever saves
    checkpoints takes `history_tensors` into them and gives them to `load_history`.

    >>> store = MemoryStore(3, 1)
    >>> store.blend(torch.tensor([1]), torch.tensor([[4.0]]), 0.75, torch.tensor([10]))
    >>> store.blend(torch.tensor([1]), torch.tensor([[8.0]]), 0.75, torch.tensor([20]))
    >>> store.get(torch.tensor([0, 1])).vectors.squeeze(1)
    tensor([0., 5.])
    """

    def __init__(self, rows: int, width: int, history: History | None = None) -> None:
        super().__init__()
        check_width(width)
        check_history(history)
        self.width, self.history = width, history
        self.versions = Versions(rows, width, history) if history is not None else None
        self.writers: dict[str, Marker] = {}
        self.register_buffer("vectors", torch.zeros(rows, width))
        self.register_buffer("counts", torch.zeros(rows, dtype=torch.int32))
        self.register_buffer("last", torch.zeros(rows, dtype=torch.int64))
        self.vectors: Tensor
        self.counts: Tensor
        self.last: Tensor

    def get(self, ids: Tensor, asof: int | None = None) -> Memory:
        """[n] -> what is held of them, or was known at a time. Raises ValueError for a time without a history."""
        at, tick = ids.long(), ticked(self.history, asof)
        newest = Memory(F.embedding(at, self.vectors), self.counts[at].long(), self.last[at])
        return newest if tick is None or self.versions is None else self.versions.read(at, newest, tick)

    @torch.no_grad()
    def put(self, ids: Tensor, memory: Memory) -> None:
        """As given, at every time."""
        self._set(ids.long(), memory)
        if self.versions is not None:
            self.versions.drop(ids.long())

    @torch.no_grad()
    def blend(self, ids: Tensor, vectors: Tensor, decay: float | None, ts: Tensor, stamp: Stamp | None = None) -> None:
        """See store/contract.py. Raises ValueError for a decay outside (0, 1)."""
        check_decay(decay)
        if stamp is not None and len(ids):
            marker = self.writers.get(stamp.writer, Marker())
            self.writers[stamp.writer] = marker.moved(int(stamp.offsets.max()))
            fresh = marker.fresh(stamp.offsets.to(ids.device), ids)
            ids, vectors, ts = ids[fresh], vectors[fresh], ts[fresh]
        if len(ids) == 0:
            return
        distinct, new = averaged(ids, vectors, ts)
        old = self.get(distinct)
        if stamp is not None and self.versions is not None:
            self.versions.keep(distinct, old, stamp.known)
        self._set(distinct, blended(old, new, decay))

    def done(self, writer: str) -> Done:
        """How far a writer has come since birth, or since what `load_history` was given."""
        return self.writers.get(writer, Marker()).done

    def history_tensors(self) -> dict[str, Tensor]:
        """For a checkpoint, beside the state_dict: older states, and done/WRITER."""
        found = {} if self.versions is None else self.versions.tensors()
        return {**found, **{f"done/{writer}": torch.tensor(marker.upto) for writer, marker in self.writers.items()}}

    def load_history(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `history_tensors`."""
        if self.versions is not None:
            self.versions.load(tensors)
        self.writers = {k.removeprefix("done/"): Marker(int(v)) for k, v in tensors.items() if k.startswith("done/")}

    def clear(self) -> None:
        """Forget everything."""
        for held in (self.vectors, self.counts, self.last):
            held.zero_()
        if self.versions is not None:
            self.versions.clear()
        self.writers.clear()

    def __len__(self) -> int:
        return int((self.counts > 0).sum())

    def __repr__(self) -> str:
        return f"<MemoryStore of {self.vectors.shape[0]:,} ids x {self.width}>"

    def _set(self, at: Tensor, memory: Memory) -> None:
        self.vectors.index_copy_(0, at, memory.vectors.float())
        self.counts[at] = memory.counts.int()
        self.last[at] = memory.last
