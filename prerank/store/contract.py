"""What every store does: ids -> vectors, with how often and when last each was written.

    store.get(ids)                          -> Memory: vectors [n, K], counts [n], last [n]; zeros where an id was never written
    store.put(ids, memory)                  as given; later ones of the same id win
    store.blend(ids, vectors, decay, ts)    new = decay old + (1 - decay) mean of the call's vectors of the id

Rules of `blend`, the same in every store (REFERENCE 1.6): vectors of one id in one call are averaged first and blended once, so
that their order does not matter; a first sighting sets the vector (zeros are no evidence); without a decay the vector is the
mean of all that was ever written. An id is seen when its count, of vectors and not of calls, is above 0.

    store.get(ids, asof=time)               as it was known then: store/history.py
    store.blend(.., stamp=Stamp(..))        what the writer has blended before is left out: store/stamp.py
    store.done(writer)                      how far it has come

Rules of time: a blend belongs to the tick of its stamp's `known`, and of that of the id's newest state where that is later. A read as of
a time sees blends of ticks before the time's own. Of what is older than `keep` an id has no state: it was never seen, and never is
anything newer shown in its place. What is blended without a stamp changes the newest state and not its tick; what is put was always so.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from prerank.store.stamp import Done, Stamp


class StoreError(ValueError):
    """A store cannot be reached, or holds something else than what was asked of it; the message names it and says why."""


class SpaceError(StoreError):
    """A store holds vectors of other ids or of another model."""


class Memory(NamedTuple):
    """What a store holds of n ids.

    vectors   [n, K] float32
    counts    [n] int64, vectors that were blended into it; 0: never seen
    last      [n] int64, the latest time it was written at, milliseconds; 0 where it was never seen
    """

    vectors: Tensor
    counts: Tensor
    last: Tensor


class Store(Protocol):
    """See the module's first lines. Ids are int64 [n], on the store's device or the CPU.

    width   K
    """

    width: int

    def get(self, ids: Tensor, asof: int | None = None) -> Memory:
        """asof, milliseconds: as it was known then; None: newest. Raises StoreError when the store cannot be reached, ValueError for
        a time in a store without history."""
        ...

    def put(self, ids: Tensor, memory: Memory) -> None:
        """Raises StoreError when the store cannot be reached."""
        ...

    def blend(self, ids: Tensor, vectors: Tensor, decay: float | None, ts: Tensor, stamp: Stamp | None = None) -> None:
        """ids [n], vectors [n, K], decay of the old value (None: cumulative mean), ts [n] milliseconds; who writes, and when it was
        known (None: nobody asks). Raises StoreError."""
        ...

    def done(self, writer: str) -> Done:
        """How far a writer has come. Raises StoreError."""
        ...

    def clear(self) -> None:
        """Forget everything. Raises StoreError when the store cannot be reached."""
        ...

    def __len__(self) -> int:
        """Ids that were seen."""
        ...


def averaged(ids: Tensor, vectors: Tensor, ts: Tensor) -> tuple[Tensor, Memory]:
    """Distinct ids [u] in order, and of each the mean vector, how many there were, and the latest time.

    Sums run in double precision, so that the mean does not depend on the order of the rows.

    >>> ids, found = averaged(torch.tensor([7, 3, 7]), torch.tensor([[1.0], [5.0], [3.0]]), torch.tensor([10, 20, 30]))
    >>> ids, found.vectors.squeeze(1), found.counts, found.last
    (tensor([3, 7]), tensor([5., 2.]), tensor([1, 2]), tensor([20, 30]))
    """
    distinct, where, counts = torch.unique(ids.long(), return_inverse=True, return_counts=True)
    sums = torch.zeros(len(distinct), vectors.shape[1], dtype=torch.float64, device=vectors.device)
    sums.index_add_(0, where, vectors.double())
    last = torch.zeros_like(distinct).scatter_reduce(0, where, ts.long().to(distinct.device), "amax", include_self=False)
    return distinct, Memory((sums / counts.unsqueeze(1)).float(), counts, last)


def blended(old: Memory, new: Memory, decay: float | None) -> Memory:
    """What is held of ids, with new means blended in: `decay` of the old stays, or old / (old + new) for a mean.

    Nothing of it stays at a first sighting. The new one's part is found in double precision (a mean of millions moves by millionths),
    the vectors are mixed in single: mixing both was ten times as dear as all else.
    """
    if decay is None:
        part = new.counts.double() / (old.counts + new.counts).double()  # [n]
    else:
        part = torch.where(old.counts > 0, 1 - decay, 1.0).double()
    vectors = torch.lerp(old.vectors, new.vectors, part.float().unsqueeze(1))
    return Memory(vectors, old.counts + new.counts, torch.maximum(old.last, new.last))


def check_decay(decay: float | None) -> None:
    """Raise ValueError for a decay outside (0, 1)."""
    if decay is not None and not 0 < decay < 1:
        raise ValueError(f"decay: must lie between 0 and 1; got {decay}")


def check_width(width: int) -> None:
    """Raise ValueError for vectors of no width, or of more than a script on a server takes."""
    if not 1 <= width <= 4096:
        raise ValueError(f"width of a stored vector: must be from 1 to 4096; got {width}")
