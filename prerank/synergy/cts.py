"""CTS, cross-tower synchronization: each id remembers the other tower's vectors of what it answered with 1, and its tower reads that.

    forward   u = UserTower([x_u ; c_u])      v = ItemTower([x_v ; c_v])
    update    only where y = 1:   c_u <- a c_u + (1 - a) v      c_v <- a c_v + (1 - a) u      a = .8 on the OLD value

CS3, arXiv 2604.19269 (2026), read second-hand (no eq. number is cited). It has no loss of its own. Our choices: of several heads the last
level's, as they are stored, one after another, without id heads; a positive is one of the first label; a second cache of what was
answered with 0, by option.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prerank.batch import Batch, Group, Output, Representation
from prerank.store import EmaCache, Outside
from prerank.synergy.rows import Rows, Side, ids_of


class CrossMemory:
    """CTS of one side: a `batch.Memorising`; see the module's first lines.

    side       whose ids remember
    ids        name of the side's id column
    positive, negative   caches; negative may be None
    own        head groups that are the tower's: those of an id head come behind them
    """

    needs_hidden = False

    def __init__(self, side: Side, ids: str, positive: EmaCache, negative: EmaCache | None, own: int) -> None:
        self.side, self.ids, self.positive, self.negative, self.own = side, ids, positive, negative, own

    def observe(self, batch: Batch, output: Output, hidden: Tensor | None) -> None:
        """Blend what the other tower said of each row into the row's id."""
        said = output.item if self.side == "user" else output.user
        other: Side = "item" if self.side == "user" else "user"
        assert said is not None, "CTS needs two towers"
        vectors = last_level(said, output.groups, other, self.own)
        ids = ids_of(batch, self.side, self.ids)
        rows = Rows.of(batch).known(self.side, ids)
        liked = batch.labels[rows.lists, rows.places, 0] > 0
        for cache, chosen in ((self.positive, liked), (self.negative, ~liked)):
            if cache is not None:
                one = rows.at(chosen)
                cache.write(ids[one.on(self.side)], vectors[one.on(other)], one.ts(batch), one.lists)

    def reset(self) -> None:
        """As at birth."""
        for cache in self._caches():
            cache.reset()

    def tensors(self) -> list[Tensor]:
        """Of its caches."""
        return [t for cache in self._caches() for t in cache.buffers()]

    def outside(self) -> list[Outside]:
        """Its stores, where they lie outside the model."""
        return [cache.store for cache in self._caches() if isinstance(cache.store, Outside)]

    def _caches(self) -> list[EmaCache]:
        return [self.positive] if self.negative is None else [self.positive, self.negative]


def last_level(said: Representation, groups: Sequence[Group], side: Side, own: int) -> Tensor:
    """The last level's heads of the first `own` groups, flattened.  # [rows, K]"""
    heads = []
    for group, vectors in zip(groups[:own], said.groups[:own], strict=True):
        last = group.user_heads // group.levels if side == "user" else group.item_heads
        heads.append(vectors[:, vectors.shape[1] - last :].flatten(1))
    return torch.cat(heads, dim=1)


def last_level_width(groups: Sequence[Group], side: Side, own: int) -> int:
    """K of `last_level`."""
    return sum((g.user_heads // g.levels if side == "user" else g.item_heads) * g.width for g in groups[:own])
