"""CTS and CMS written from their equations, event by event, over the caches of tests/store/oracle.py."""

from __future__ import annotations

import numpy as np

from prerank.batch import Batch
from tests.store.oracle import Oracle


def write(cache: Oracle, batch: Batch, side: str, ids: str, vectors: np.ndarray, chosen: np.ndarray) -> None:
    """One batch into a cache: vectors [B, C, K] of its rows, those that are chosen [B, C]."""
    columns, names, found, ts = getattr(batch, side), [], [], []
    for b in range(batch.rows):
        for c in range(batch.item_index.shape[1]):
            row = batch.user_index[b] if side == "user" else batch.item_index[b, c]
            if batch.where[b, c] and chosen[b, c] and columns[ids][row] >= 3:
                names.append(int(columns[ids][row]))
                found.append(vectors[b, c])
                ts.append(int(batch.ts[b, c]))  # type: ignore[index]
    if names:
        cache.write(names, np.array(found), ts)


def field(caches: list[Oracle], clock: list[int], one: int, weight: np.ndarray, bias: np.ndarray, inputs: str) -> np.ndarray:
    """What the tower reads of an id: LayerNorm(vector) x seen, the seen bit, log(1 + count), log(1 + hours), projected."""
    numbers: list[float] = []
    for cache, now in zip(caches, clock, strict=True):
        vector, seen = cache.read(one), one in cache.counts
        if inputs != "count_age":
            numbers += list((vector - vector.mean()) / np.sqrt(vector.var() + 1e-5) * seen)
        numbers.append(float(seen))
        if inputs != "vector":
            hours = (now - cache.last[one]) / 3_600_000 if seen else 0.0
            numbers += [np.log(1 + cache.counts.get(one, 0)), np.log(1 + hours)]
    return weight @ np.array(numbers) + bias
