"""The moving average over a store: the clock, ages, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prerank.store import EmaCache, MemoryStore
from tests.store.oracle import Oracle


@pytest.mark.parametrize(("mode", "decay"), [("ema", 0.8), ("mean", None)])
def test_a_stream_against_the_oracle(mode, decay):
    cache, oracle, rng = EmaCache(MemoryStore(20, 5), mode=mode), Oracle(5, decay), np.random.default_rng(0)
    for _ in range(60):
        n = int(rng.integers(1, 9))
        ids, vectors, ts = rng.integers(0, 20, n), rng.normal(size=(n, 5)).astype(np.float32), rng.integers(1, 10**12, n)
        cache.write(torch.from_numpy(ids), torch.from_numpy(vectors), torch.from_numpy(ts))
        oracle.write(ids.tolist(), vectors, ts.tolist())
    found = cache.read(torch.arange(20))
    np.testing.assert_allclose(found.vectors.numpy(), [oracle.read(i) for i in range(20)], atol=1e-6)
    assert found.counts.tolist() == [oracle.counts.get(i, 0) for i in range(20)]
    assert found.last.tolist() == [oracle.last.get(i, 0) for i in range(20)]
    assert int(cache.clock) == max(oracle.last.values())


def test_age_is_told_by_the_clock_of_the_cache():
    cache = EmaCache(MemoryStore(4, 1))
    cache.write(torch.tensor([1]), torch.ones(1, 1), torch.tensor([3_600_000]))
    cache.write(torch.tensor([2]), torch.ones(1, 1), torch.tensor([3 * 3_600_000]))
    assert cache.age(cache.read(torch.tensor([0, 1, 2]))).tolist() == [0, 2, 0]


def test_without_times_a_write_is_an_hour():
    cache = EmaCache(MemoryStore(4, 1))
    for one in (1, 2, 2):
        cache.write(torch.tensor([one]), torch.ones(1, 1))
    assert cache.age(cache.read(torch.tensor([1, 2]))).tolist() == [2, 0]


def test_normalised_writes_have_length_one():
    cache = EmaCache(MemoryStore(2, 2), normalise=True)
    cache.write(torch.tensor([1]), torch.tensor([[3.0, 4.0]]))
    torch.testing.assert_close(cache.read(torch.tensor([1])).vectors, torch.tensor([[0.6, 0.8]]))


def test_reset_is_birth():
    cache = EmaCache(MemoryStore(2, 2))
    cache.write(torch.tensor([1]), torch.ones(1, 2), torch.tensor([5]))
    cache.reset()
    assert all(not v.any() for v in cache.state_dict().values())


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1, 1.5])
def test_decay_lies_between_0_and_1(decay):
    with pytest.raises(ValueError, match=f"decay: must lie between 0 and 1; got {decay}"):
        EmaCache(MemoryStore(2, 2), decay)


def test_vectors_of_another_width_and_nan_are_refused():
    cache = EmaCache(MemoryStore(2, 2))
    with pytest.raises(ValueError, match="must be 2 wide; got 3"):
        cache.write(torch.tensor([1]), torch.ones(1, 3))
    with pytest.raises(ValueError, match="must be finite"):
        cache.write(torch.tensor([1]), torch.full((1, 2), float("nan")))


def test_what_is_written_is_detached_and_what_is_read_has_no_gradient():
    cache = EmaCache(MemoryStore(2, 2))
    cache.write(torch.tensor([1]), torch.ones(1, 2, requires_grad=True))
    assert not cache.read(torch.tensor([1])).vectors.requires_grad
