"""Item columns that a ranker reads together with the user's: its whole network runs for every candidate given (COLD's place).

Nothing of an item can be computed beforehand, so that the cost is one forward pass of as many pairs; export measures it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prerank.batch import PairRanker

CHUNK = 512  # pairs of a forward pass: their layers stay in the cache


class RankedItems:
    """Encoded columns of N items, and the ranker.

    columns      {feature: [N, ...]}, may be memory maps
    objectives   T
    """

    def __init__(self, ranker: PairRanker, columns: Mapping[str, NDArray[Any]], objectives: int) -> None:
        self.ranker, self.columns, self.objectives = ranker, columns, objectives

    def score(self, user: Mapping[str, NDArray[Any]], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Columns of one user [1, ...], rows [C] (-1: unknown) -> logits float32 [C, T], NaN where unknown."""
        logits = np.full((len(rows), self.objectives), np.nan, np.float32)
        known = np.flatnonzero(rows >= 0)
        with torch.inference_mode():
            asking = {name: torch.from_numpy(np.array(column)) for name, column in user.items()}
            for start in range(0, len(known), CHUNK):
                part = known[start : start + CHUNK]
                picked, n = rows[part], len(part)
                items = {name: torch.from_numpy(column[picked]) for name, column in self.columns.items()}
                found, _ = self.ranker.pairs(asking, items, torch.zeros(n, dtype=torch.int64), torch.arange(n))
                logits[part] = found.float().numpy()
        return logits

    def __repr__(self) -> str:
        return f"<RankedItems {len(next(iter(self.columns.values()), ()))} items, ranked by {type(self.ranker).__name__}>"
