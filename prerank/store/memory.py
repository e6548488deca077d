"""A store in this process: dense tensors with a row for every id from 0 on, which are buffers of the model that holds it.

As buffers they are saved with weights and checkpoints, exported with a generation, and go where the model goes. An id takes
4 K + 12 bytes, seen or not: 268 bytes at K = 64, so that 10^8 ids want 26.8 GB. Of 10^7, reading 8,192 took 3 ms and blending 19.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prerank.store.contract import Memory, averaged, blended, check_decay, check_width


class MemoryStore(nn.Module):
    """See the module's first lines; its ids are rows of a vocabulary.

    rows    ids are 0 .. rows - 1
    width   K

    >>> store = MemoryStore(3, 1)
    >>> store.blend(torch.tensor([1]), torch.tensor([[4.0]]), 0.75, torch.tensor([10]))
    >>> store.blend(torch.tensor([1]), torch.tensor([[8.0]]), 0.75, torch.tensor([20]))
    >>> store.get(torch.tensor([0, 1])).vectors.squeeze(1)
    tensor([0., 5.])
    """

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        check_width(width)
        self.width = width
        self.register_buffer("vectors", torch.zeros(rows, width))
        self.register_buffer("counts", torch.zeros(rows, dtype=torch.int32))
        self.register_buffer("last", torch.zeros(rows, dtype=torch.int64))
        self.vectors: Tensor
        self.counts: Tensor
        self.last: Tensor

    def get(self, ids: Tensor) -> Memory:
        """[n] -> what is held of them."""
        at = ids.long()
        return Memory(F.embedding(at, self.vectors), self.counts[at].long(), self.last[at])

    @torch.no_grad()
    def put(self, ids: Tensor, memory: Memory) -> None:
        """As given."""
        at = ids.long()
        self.vectors.index_copy_(0, at, memory.vectors.float())
        self.counts[at] = memory.counts.int()
        self.last[at] = memory.last

    @torch.no_grad()
    def blend(self, ids: Tensor, vectors: Tensor, decay: float | None, ts: Tensor) -> None:
        """See store/contract.py. Raises ValueError for a decay outside (0, 1)."""
        check_decay(decay)
        if len(ids) == 0:
            return
        distinct, new = averaged(ids, vectors, ts)
        self.put(distinct, blended(self.get(distinct), new, decay))

    def clear(self) -> None:
        """Forget everything."""
        for held in (self.vectors, self.counts, self.last):
            held.zero_()

    def __len__(self) -> int:
        return int((self.counts > 0).sum())

    def __repr__(self) -> str:
        return f"<MemoryStore of {self.vectors.shape[0]:,} ids x {self.width}>"
