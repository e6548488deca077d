"""One file for every store: the contract of store/contract.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prerank.store import EmaCache, LmdbFile, Memory, MemoryStore, RedisStore, Store, averaged
from tests.store.oracle import Oracle

WIDTH = 3


@pytest.fixture(params=["memory", "lmdb", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Every store in turn, empty; ids from 0 to 99."""
    if request.param == "memory":
        yield MemoryStore(100, WIDTH)
    elif request.param == "lmdb":
        file = LmdbFile(tmp_path / "m.lmdb", map_size=1 << 24)
        yield file.store("cms", WIDTH, "a")
        file.close()
    else:
        remote = RedisStore(request.getfixturevalue("redis_url"), "cms [of] user*", WIDTH, "a")
        remote.clear()
        yield remote
        remote.clear()
        remote.close()


def vectors(*rows: float) -> torch.Tensor:
    """[n, 3] with equal numbers in a row."""
    return torch.tensor(rows).unsqueeze(1).expand(-1, WIDTH).contiguous()


def test_what_was_never_written_is_zeros_and_unseen(store):
    found = store.get(torch.tensor([1, 5]))
    assert found.vectors.shape == (2, WIDTH)
    assert not found.vectors.any()
    assert (found.counts.tolist(), found.last.tolist(), len(store)) == ([0, 0], [0, 0], 0)


def test_the_first_sighting_sets_and_the_second_blends(store):
    store.blend(torch.tensor([4]), vectors(8.0), 0.75, torch.tensor([10]))
    assert store.get(torch.tensor([4])).vectors.tolist() == [[8.0] * WIDTH]
    store.blend(torch.tensor([4]), vectors(4.0), 0.75, torch.tensor([20]))
    found = store.get(torch.tensor([4]))
    assert found.vectors.tolist() == [[0.75 * 8 + 0.25 * 4] * WIDTH]
    assert (found.counts.tolist(), found.last.tolist(), len(store)) == ([2], [20], 1)


def test_duplicates_of_a_call_are_averaged_and_blended_once(store):
    store.blend(torch.tensor([4]), vectors(8.0), 0.5, torch.tensor([10]))
    store.blend(torch.tensor([4, 9, 4]), vectors(2.0, 7.0, 4.0), 0.5, torch.tensor([30, 40, 20]))
    found = store.get(torch.tensor([9, 4, 4]))
    assert found.vectors[:, 0].tolist() == [7.0, 0.5 * 8 + 0.5 * 3, 0.5 * 8 + 0.5 * 3]
    assert (found.counts.tolist(), found.last.tolist()) == ([1, 3, 3], [40, 30, 30])


def test_without_decay_it_is_the_mean_of_all(store):
    for given_ in ((1.0, 2.0), (6.0,), (3.0, 3.0, 3.0)):
        store.blend(torch.full((len(given_),), 2), vectors(*given_), None, torch.zeros(len(given_), dtype=torch.int64))
    torch.testing.assert_close(store.get(torch.tensor([2])).vectors, vectors(18 / 6))


def test_put_is_as_given_and_time_never_runs_back(store):
    store.put(torch.tensor([3]), Memory(vectors(5.0), torch.tensor([7]), torch.tensor([2**41])))
    store.blend(torch.tensor([3]), vectors(1.0), 0.5, torch.tensor([12]))
    found = store.get(torch.tensor([3]))
    assert (found.vectors[0, 0].item(), found.counts.item(), found.last.item()) == (3.0, 8, 2**41)


def test_nothing_written_changes_nothing(store):
    store.blend(torch.empty(0, dtype=torch.int64), torch.empty(0, WIDTH), 0.5, torch.empty(0, dtype=torch.int64))
    assert len(store) == 0
    assert store.get(torch.empty(0, dtype=torch.int64)).vectors.shape == (0, WIDTH)


def test_clear_forgets(store):
    store.blend(torch.tensor([4]), vectors(8.0), 0.5, torch.tensor([10]))
    store.clear()
    assert len(store) == 0
    assert not store.get(torch.tensor([4])).vectors.any()


@pytest.mark.parametrize("decay", [0.8, None])
def test_a_stream_against_the_oracle(store, decay):
    oracle, rng = Oracle(WIDTH, decay), np.random.default_rng(1)
    for _ in range(40):
        n = int(rng.integers(1, 12))
        ids, rows, ts = rng.integers(0, 15, n), rng.normal(size=(n, WIDTH)).astype(np.float32), rng.integers(1, 2**45, n)
        store.blend(torch.from_numpy(ids), torch.from_numpy(rows), decay, torch.from_numpy(ts))
        oracle.write(ids.tolist(), rows, ts.tolist())
    found = store.get(torch.arange(15))
    np.testing.assert_allclose(found.vectors.numpy(), [oracle.read(i) for i in range(15)], atol=1e-6)
    assert found.counts.tolist() == [oracle.counts.get(i, 0) for i in range(15)]
    assert found.last.tolist() == [oracle.last.get(i, 0) for i in range(15)]


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_decay_lies_between_0_and_1(store, decay):
    with pytest.raises(ValueError, match="decay: must lie between 0 and 1"):
        store.blend(torch.tensor([4]), vectors(8.0), decay, torch.tensor([10]))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-1e6, 1e6, width=32), st.integers(0, 2**45)), min_size=1, max_size=12), st.randoms())
def test_the_order_of_a_call_does_not_matter(rows, random):
    shuffled = random.sample(rows, len(rows))
    one, two = (averaged(torch.tensor([r[0] for r in part]), torch.tensor([[r[1]] for r in part]), torch.tensor([r[2] for r in part]))
                for part in (rows, shuffled))  # fmt: skip
    assert torch.equal(one[0], two[0])
    torch.testing.assert_close(one[1].vectors, two[1].vectors, rtol=1e-6, atol=1e-6)
    assert torch.equal(one[1].counts, two[1].counts)
    assert torch.equal(one[1].last, two[1].last)


@pytest.mark.parametrize("width", [0, 5000])
def test_widths(width):
    with pytest.raises(ValueError, match=f"width of a stored vector: must be from 1 to 4096; got {width}"):
        MemoryStore(3, width)


def test_an_average_over_any_store(store):
    cache = EmaCache(store, 0.5)
    for value in (8.0, 4.0):
        cache.write(torch.tensor([7]), vectors(value))
    assert cache.read(torch.tensor([7])).vectors.tolist() == [[6.0] * WIDTH]
    cache.reset()
    assert len(store) == 0
