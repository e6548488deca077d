"""Stored items that only the model's own head can compare (RankTower's reads the pair): the head itself, for the candidates given.

The item network still does not run: what is about an item alone was computed at export. The head runs in torch on CHUNK
candidates at a time, so that what it makes of them stays in the second-level cache.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prerank.batch import Head, Representation
from prerank.index import ItemMatrix, unpack

CHUNK = 256


class HeadItems:
    """Answers as `ItemMatrix.score` does, from the same rows."""

    def __init__(self, head: Head, items: ItemMatrix) -> None:
        self.head, self.items = head, items
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # a read-only map could be written to, says torch
            table = torch.from_numpy(items.rows) if items.dtype == "fp32" else None
            self._bias = torch.from_numpy(items.bias)
        self._table = None if table is None else Representation(self._groups(table, "item"), self._bias)

    def score(self, user: NDArray[np.float32], user_bias: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """User vector [sum Hu K] and bias [T], rows [C] (-1: unknown) -> logits float32 [C, T], NaN where unknown."""
        logits = np.full((len(rows), self.items.bias.shape[1]), np.nan, np.float32)
        known = np.flatnonzero(rows >= 0)
        with torch.inference_mode():
            asking = Representation(self._groups(torch.from_numpy(user[None]), "user"), torch.from_numpy(user_bias[None]))
            one = torch.zeros(1, dtype=torch.int64)
            for start in range(0, len(known), CHUNK):
                part = known[start : start + CHUNK]
                told, index = self._told(rows[part])
                logits[part] = self.head(asking, told, one, index[None])[0].numpy()
        return logits

    def _told(self, rows: NDArray[np.int64]) -> tuple[Representation, Tensor]:
        """A representation of items and where in it these rows stand: the whole table as it lies, or what was unpacked of it."""
        if self._table is not None:
            return self._table, torch.from_numpy(rows)
        items = self.items
        scales = None if items.scales is None else items.scales[rows]
        flat = torch.from_numpy(unpack(items.rows[rows], scales, items.width, items.dtype))
        return Representation(self._groups(flat, "item"), self._bias[rows]), torch.arange(len(rows))

    def _groups(self, flat: Tensor, side: str) -> tuple[Tensor, ...]:
        """Rows [n, ..] -> views [n, H_g, K_g] of each head group."""
        return tuple(self._split(flat, side))

    def _split(self, flat: Tensor, side: str) -> Iterator[Tensor]:
        at = 0
        for g in self.items.groups:
            heads = g.user_heads if side == "user" else g.item_heads
            yield flat[:, at : at + heads * g.width].unflatten(1, (heads, g.width))
            at += heads * g.width

    def __repr__(self) -> str:
        return f"<HeadItems {len(self.items)} items, compared by {type(self.head).__name__}>"
