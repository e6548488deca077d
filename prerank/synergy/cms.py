"""CMS, cascade-model sharing: each id remembers what the ranking model's hidden layer said of its rows, and its tower reads that.

    h = output of the ranking model's penultimate layer, for EVERY logged row, positive or negative
    s_u <- b s_u + (1 - b) h      s_v <- b s_v + (1 - b) h      b = .8

CS3, arXiv 2604.19269 (2026), read second-hand (no eq. number is cited). No distillation: h is an input. h must come from a ranking
model that has not seen later rows than the ones it speaks of: one trained in step with the stream, or a column that was made in
order of time (`prerank teach`). A row whose column is all zeros has none (a missing vector is read as zeros).
"""

from __future__ import annotations

from torch import Tensor

from prerank.batch import Batch, Output
from prerank.store import EmaCache, Outside
from prerank.synergy.rows import Rows, Side, ids_of


class RankerMemory:
    """CMS of one side: a `batch.Memorising`; see the module's first lines.

    side     whose ids remember
    ids      name of the side's id column
    column   user-side column of the batch that holds h; None: h is given to `observe`
    """

    def __init__(self, side: Side, ids: str, cache: EmaCache, column: str | None) -> None:
        self.side, self.ids, self.cache, self.column = side, ids, cache, column
        self.needs_hidden = column is None

    def observe(self, batch: Batch, output: Output, hidden: Tensor | None) -> None:
        """Blend each row's h into its id. Raises ValueError when there is none to blend, or of another width."""
        ids = ids_of(batch, self.side, self.ids)
        rows = Rows.of(batch).known(self.side, ids)
        if self.column is not None:
            h = batch.user[self.column][rows.users]  # [P, K]
            there = (h != 0).any(dim=1)
            rows, h = rows.at(there), h[there]
        elif hidden is not None:
            h = hidden.flatten(0, 1).index_select(0, rows.lists * hidden.shape[1] + rows.places)
        else:
            raise ValueError("cms: needs the ranking model's hidden vectors of the batch; got none")
        if h.shape[1] != self.cache.width:
            raise ValueError(f"cms: the ranking model's hidden vectors must be {self.cache.width} wide; got {h.shape[1]}")
        self.cache.write(ids[rows.on(self.side)], h, rows.ts(batch), rows.lists)

    def reset(self) -> None:
        """As at birth."""
        self.cache.reset()

    def tensors(self) -> list[Tensor]:
        """Of its cache."""
        return list(self.cache.buffers())

    def outside(self) -> list[Outside]:
        """Its store, where it lies outside the model."""
        return [self.cache.store] if isinstance(self.cache.store, Outside) else []
