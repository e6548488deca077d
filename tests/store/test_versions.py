"""What is a MemoryStore's own: its past goes through a checkpoint, is shared with a model's copy, and does not grow."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from prerank.store import Done, EmaCache, History, MemoryStore, Stamp

HISTORY = History(10, 50)


def fill(store: MemoryStore, start: int, end: int, ids: int = 8) -> None:
    """A call at each step, of 6 of the ids."""
    for n in range(start, end):
        rng = np.random.default_rng(n)
        some = torch.from_numpy(rng.permutation(ids)[:6])
        store.blend(some, torch.from_numpy(rng.normal(size=(6, 2)).astype(np.float32)), 0.8, torch.full((6,), n * 4),
                    Stamp("w", 6 * n + torch.arange(6), n * 4))  # fmt: skip


def state(store: MemoryStore) -> list[Any]:
    return [[part.tolist() for part in store.get(torch.arange(8), asof)] for asof in (None, *range(0, 500, 10))]


def test_a_checkpoint_goes_on_bit_for_bit() -> None:
    whole, first, second = (MemoryStore(8, 2, HISTORY) for _ in range(3))
    fill(whole, 0, 90)
    fill(first, 0, 60)
    saved = {k: v.clone() for k, v in first.history_tensors().items()}
    second.load_state_dict(first.state_dict())
    second.load_history(saved)
    assert second.done("w") == Done(359, 359)
    fill(second, 50, 90)  # ten of the calls again
    assert state(second) == state(whole)
    assert all(torch.equal(v, second.history_tensors()[k]) for k, v in whole.history_tensors().items())


def test_the_past_is_no_part_of_the_weights() -> None:
    assert set(MemoryStore(8, 2, HISTORY).state_dict()) == {"vectors", "counts", "last"}


def test_a_copy_that_shares_the_buffers_shares_the_past() -> None:
    """As the model does that predicts with averaged weights."""
    cache = EmaCache(MemoryStore(8, 2, HISTORY))
    store: Any = cache.store
    fill(store, 0, 2)
    follower = copy.deepcopy(cache, {id(t): t for t in cache.buffers()})
    fill(store, 2, 700)
    assert state(follower.store) == state(store)  # type: ignore[arg-type]


def test_the_pool_does_not_grow() -> None:
    store = MemoryStore(1000, 2, HISTORY)
    sizes = set()
    for n in range(40):
        fill(store, n * 100, n * 100 + 100, 1000)
        assert store.versions is not None
        sizes.add(len(store.versions.until))
    assert sizes == {1024}
    store.clear()
    assert (len(store), store.done("w"), len(store.history_tensors()["until"])) == (0, Done(-1, -1), 0)
