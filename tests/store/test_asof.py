"""Every store, read as of a time: against a memory that keeps every state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prerank.store import EmaCache, History, LmdbFile, LmdbStore, Memory, MemoryStore, Moment, Outside, RedisStore, SpaceError, Stamp, Store
from tests.store.timeline import Timeline

WIDTH, TICK, KEEP = 2, 10, 40
HISTORY = History(TICK, KEEP)
IDS = 6


@pytest.fixture(params=["memory", "lmdb", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Every store in turn, empty."""
    if request.param == "memory":
        yield MemoryStore(IDS, WIDTH, HISTORY)
    elif request.param == "lmdb":
        file = LmdbFile(tmp_path / "m.lmdb", map_size=1 << 24, sync=False)
        yield file.store("s", WIDTH, "a", HISTORY)
        file.close()
    else:
        remote = RedisStore(request.getfixturevalue("redis_url"), "asof", WIDTH, "a", HISTORY)
        remote.clear()
        yield remote
        remote.clear()
        remote.close()


def blend(store: Store, ids: list[int], values: list[float], known: int, offset: int = 0, decay: float | None = 0.5) -> None:
    vectors = torch.tensor(values).unsqueeze(1).expand(-1, WIDTH)
    offsets = offset + torch.arange(len(ids))
    store.blend(torch.tensor(ids), vectors, decay, torch.full((len(ids),), known), Stamp("w", offsets, known))


def told(memory: Memory) -> list[tuple[float, int, int]]:
    return list(zip(memory.vectors[:, 0].tolist(), memory.counts.tolist(), memory.last.tolist(), strict=True))


calls = st.lists(
    st.tuples(st.lists(st.integers(0, IDS - 1), min_size=1, max_size=5), st.integers(0, 25), st.lists(st.integers(0, KEEP), max_size=2)),
    min_size=1, max_size=14,
)  # fmt: skip


@pytest.mark.parametrize("decay", [0.8, None])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=calls, seed=st.integers(0, 99))
def test_reads_as_of_any_time_against_every_state(store: Store, decay: float | None, calls: list[Any], seed: int) -> None:
    """Calls of ids, of how much later they are known, and reads behind each, of times so far back."""
    store.clear()
    oracle, rng, known, offset = Timeline(WIDTH, decay, TICK), np.random.default_rng(seed), 0, 0
    asked: list[tuple[int, list[tuple[float, int, int]]]] = []
    for ids, later, back in calls:
        known += later
        vectors, ts = rng.normal(size=(len(ids), WIDTH)).astype(np.float32), rng.integers(0, known + 1, len(ids))
        stamp = Stamp("w", offset + torch.arange(len(ids)), known)
        store.blend(torch.tensor(ids), torch.from_numpy(vectors), decay, torch.from_numpy(ts), stamp)
        oracle.write(ids, vectors, ts.tolist(), known)
        offset += len(ids)
        for one in back:
            found, expected = store.get(torch.arange(IDS), asof=known - one), oracle.read(known - one)
            np.testing.assert_allclose(found.vectors.numpy(), [expected.read(i) for i in range(IDS)], atol=1e-6)
            assert found.counts.tolist() == [expected.counts.get(i, 0) for i in range(IDS)]
            assert found.last.tolist() == [expected.last.get(i, 0) for i in range(IDS)]
            asked.append((known - one, told(found)))
        for asof, before in asked:  # asked again after later blends: the same bits, or nothing where it is too long ago
            again = told(store.get(torch.arange(IDS), asof=asof))
            assert again == before if asof >= known - KEEP else all(a in (b, (0, 0, 0)) for a, b in zip(again, before, strict=True))
    newest = store.get(torch.arange(IDS))
    assert newest.counts.tolist() == [oracle.newest.counts.get(i, 0) for i in range(IDS)]


def test_the_own_tick_is_not_seen(store: Store) -> None:
    blend(store, [1], [8.0], known=20)
    blend(store, [1], [4.0], known=29, offset=1)
    seen = [told(store.get(torch.tensor([1]), asof))[0] for asof in (0, 19, 20, 29, 30, 39)]
    assert seen == [(0, 0, 0)] * 4 + [(6.0, 2, 29)] * 2


def test_what_is_too_long_ago_was_never_seen(store: Store) -> None:
    for n in range(20):
        blend(store, [1], [float(n)], known=10 * n, offset=n, decay=None)
    assert told(store.get(torch.tensor([1]), 190))[0] == (9.0, 19, 180)
    assert told(store.get(torch.tensor([1]), 150))[0] == (7.0, 15, 140)
    assert told(store.get(torch.tensor([1]), 70))[0] == (0, 0, 0)


def test_an_id_takes_a_state_for_each_tick_that_may_be_asked_for(store: Store) -> None:
    """Calls of one tick are one state, and what is too old is let go of: the tick that is being written, four that are kept, and the
    state before them."""
    for n in range(60):
        blend(store, [1], [float(n)], known=3 * n, offset=n)
    if isinstance(store, MemoryStore):
        assert len(store.history_tensors()["until"]) == 5
        return
    if isinstance(store, RedisStore):
        [value] = store.fetch(store.keys(torch.tensor([1])))
    else:
        assert isinstance(store, LmdbStore)
        with store._env.begin(db=store._db) as transaction:
            value = transaction.get((1).to_bytes(8, "big"))
    assert value is not None
    assert len(value) == 6 * (16 + 4 * WIDTH + 8)


def test_what_is_put_was_always_so(store: Store) -> None:
    blend(store, [1, 2], [8.0, 6.0], known=20)
    blend(store, [1, 2], [8.0, 6.0], known=35, offset=2)
    zero = torch.zeros(1, dtype=torch.int64)
    store.put(torch.tensor([1]), Memory(torch.zeros(1, WIDTH), zero, zero))  # the row of an id that expired
    assert all(told(store.get(torch.tensor([1, 2]), a))[0] == (0, 0, 0) for a in (0, 25, 30, 40, None))
    assert told(store.get(torch.tensor([1, 2]), 30))[1] == (6.0, 1, 20)
    blend(store, [1], [3.0], known=36, offset=4)
    assert [told(store.get(torch.tensor([1]), a))[0] for a in (35, 40)] == [(0, 0, 0), (3.0, 1, 36)]
    store.put(torch.tensor([2]), Memory(torch.full((1, WIDTH), 5.0), torch.tensor([7]), torch.tensor([9])))
    assert all(told(store.get(torch.tensor([2]), a))[0] == (5.0, 7, 9) for a in (0, 30, None))


def test_what_is_blended_without_a_time_changes_the_newest_alone(store: Store) -> None:
    blend(store, [1], [8.0], known=20)
    blend(store, [1], [4.0], known=30, offset=1)
    store.blend(torch.tensor([1, 3]), torch.full((2, WIDTH), 2.0), 0.5, torch.tensor([31, 31]))
    assert [told(store.get(torch.tensor([1, 3]), a)) for a in (30, 40)] == [
        [(8.0, 1, 20), (2.0, 1, 31)], [(4.0, 3, 31), (2.0, 1, 31)]]  # fmt: skip


def test_a_call_of_an_earlier_time_counts_to_the_newest_tick(store: Store) -> None:
    """Of two writers one is behind: a tick that is over stays as it was."""
    blend(store, [1], [8.0], known=30)
    store.blend(torch.tensor([1]), torch.full((1, WIDTH), 4.0), 0.5, torch.tensor([11]), Stamp("other", torch.tensor([0]), 11))
    assert [told(store.get(torch.tensor([1]), a))[0] for a in (20, 30, 40)] == [(0, 0, 0), (0, 0, 0), (6.0, 2, 30)]


def test_a_store_without_history_has_no_past(tmp_path: Path) -> None:
    for store in (MemoryStore(3, 1), LmdbFile(tmp_path / "m", map_size=1 << 20).store("s", 1, "a")):
        with pytest.raises(ValueError, match="asof: must be None in a store that keeps no history"):
            store.get(torch.tensor([1]), 10)


@pytest.mark.parametrize("history", [History(0, 10), History(10, 0), History(10, 25)])
def test_ticks_that_keep_nothing_are_refused(history: History) -> None:
    with pytest.raises(ValueError, match=f"history: keep must be a multiple of tick.*got tick {history.tick}, keep {history.keep}"):
        MemoryStore(3, 1, history)


@pytest.mark.parametrize("kind", ["lmdb", "redis"])
def test_other_ticks_are_refused_and_those_of_the_store_are_taken(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    address = f"lmdb:{tmp_path}/m" if kind == "lmdb" else request.getfixturevalue("redis_url")
    Outside(address, "ticks", 1, "a").begin()  # without; whoever comes next may ask for it
    first = Outside(address, "ticks", 1, "a", HISTORY)
    first.blend(torch.tensor([1]), torch.ones(1, 1), 0.5, torch.tensor([20]), Stamp("w", torch.tensor([0]), 20))
    with pytest.raises(SpaceError, match="must have ticks of 20 ms, 40 ms of them; it has ticks of 10 ms, 40 ms of them"):
        Outside(address, "ticks", 1, "a", History(20, 40)).begin()
    assert Outside(address, "ticks", 1, "a").get(torch.tensor([1]), 25).counts.tolist() == [0]


def test_a_cache_at_a_moment(store: Store) -> None:
    """What it reads, how old that is, and under which offsets it writes."""
    cache = EmaCache(store, 0.5)
    hour = 3_600_000
    cache.moment = Moment(None, "w", torch.tensor([4, 5, 6]), hour)
    for _ in range(2):  # the second time they are known
        cache.write(torch.tensor([1, 2]), torch.ones(2, WIDTH), torch.tensor([hour - 5, hour - 9]), torch.tensor([0, 2]))
    assert store.done("w").upto == 6
    assert cache.read(torch.tensor([0, 1, 2])).counts.tolist() == [0, 1, 1]
    cache.moment = cache.moment._replace(asof=hour)
    assert cache.read(torch.tensor([1])).counts.tolist() == [0]
    cache.moment = cache.moment._replace(asof=2 * hour - 5)
    memory = cache.read(torch.tensor([1]))
    assert (memory.counts.tolist(), cache.age(memory).tolist()) == ([1], [1.0])
    cache.moment = None
    assert cache.age(cache.read(torch.tensor([1, 2]))).tolist() == pytest.approx([0, 4 / hour])
