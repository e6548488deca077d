"""Ids of a generation to which others were added and of which some were removed since: the big table stays, small ones lie over it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prerank.index import Ids

Given = Sequence[int | str] | NDArray[np.int64]


class Catalogue:
    """Answers as `index.Ids` does. Never changed: `added` and `without` make another one that shares what it can.

    base     of the generation, rows 0 .. len(base) - 1
    extra    of ids that came later, in the order of their rows behind those; None: none came
    hidden   [rows] True where an id was removed; None: none was

    >>> items = Catalogue(Ids(np.array([30, 10]))).added(np.array([99])).without(np.array([0]))
    >>> items.rows([10, 99, 30]).tolist(), len(items)
    ([1, 2, -1], 3)
    """

    def __init__(self, base: Ids, extra: Ids | None = None, hidden: NDArray[np.bool_] | None = None) -> None:
        self.base, self.extra, self.hidden = base, extra, hidden
        self.integer = base.integer

    def __len__(self) -> int:
        """Rows, those of removed ids included."""
        return len(self.base) + (0 if self.extra is None else len(self.extra))

    @property
    def ids(self) -> Any:
        """Of all rows, those of removed ids included."""
        if self.extra is None:
            return self.base.ids
        return np.concatenate([self.base.ids, self.extra.ids]) if self.integer else [*self.base.ids, *self.extra.ids]

    def rows(self, ids: Given) -> NDArray[np.int64]:
        """ids [C] -> rows int64 [C], -1 for unknown and removed ones. Raises IdError naming the first id of the wrong kind."""
        rows = self.every(ids)
        if self.hidden is not None:
            rows[self.hidden[rows] & (rows >= 0)] = -1
        return rows

    def every(self, ids: Given) -> NDArray[np.int64]:
        """The same, but those of removed ids too."""
        rows = self.base.rows(ids)
        if self.extra is not None:
            unknown = np.flatnonzero(rows < 0)
            if len(unknown):
                asked = ids[unknown] if isinstance(ids, np.ndarray) else [ids[i] for i in unknown.tolist()]
                found = self.extra.rows(asked)
                rows[unknown] = np.where(found >= 0, found + len(self.base), -1)
        return rows

    def row(self, value: int | str) -> int:
        """One id -> its row, or -1."""
        return int(self.rows([value])[0])

    def added(self, ids: NDArray[np.int64] | Sequence[str]) -> Catalogue:
        """With ids that have no row yet, at the rows behind all others; distinct."""
        if not len(ids):
            return self
        if self.integer:
            known = np.empty(0, np.int64) if self.extra is None else self.extra.ids
            parts: Any = np.concatenate([known, np.asarray(ids, np.int64)])  # never through floats: ids may lie above 2^53
        else:
            parts = [*([] if self.extra is None else self.extra.ids), *ids]
        hidden = None if self.hidden is None else np.concatenate([self.hidden, np.zeros(len(ids), bool)])
        return Catalogue(self.base, Ids(parts), hidden)

    def without(self, rows: NDArray[np.int64]) -> Catalogue:
        """These rows answer no more."""
        return self._hiding(rows, True)

    def again(self, rows: NDArray[np.int64]) -> Catalogue:
        """These rows answer again."""
        return self if self.hidden is None else self._hiding(rows, False)

    def _hiding(self, rows: NDArray[np.int64], hide: bool) -> Catalogue:
        hidden = np.zeros(len(self), bool) if self.hidden is None else self.hidden.copy()
        hidden[rows] = hide
        return Catalogue(self.base, self.extra, hidden if hidden.any() else None)

    def __repr__(self) -> str:
        return f"<Catalogue of {len(self)} rows>"
