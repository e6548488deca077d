"""Every store: a row is blended once, however often it comes, and however the calls are cut."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prerank.store import Done, History, LmdbFile, MemoryStore, Outside, RedisStore, Stamp, Store, StoreError
from prerank.store import redis as module
from prerank.store.stamp import Marker
from tests.store.oracle import Oracle

WIDTH, IDS = 2, 7
Opener = Callable[[], Store]


@pytest.fixture(params=["memory", "lmdb", "redis"])
def opener(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    """Opens every store in turn, as whoever comes after a crash does: what it holds stays. A script of Redis takes 2 ids."""
    monkeypatch.setattr(module, "CHUNK", 2)
    if request.param == "memory":
        memory = MemoryStore(IDS, WIDTH, History(10, 50))
        yield lambda: memory
    elif request.param == "lmdb":
        file = LmdbFile(tmp_path / "m.lmdb", map_size=1 << 24, sync=False)
        yield lambda: file.store("s", WIDTH, "a", History(10, 50))
        file.close()
    else:
        url = request.getfixturevalue("redis_url")
        yield lambda: RedisStore(url, "once", WIDTH, "a", History(10, 50))
        RedisStore(url, "once", WIDTH, "a").clear()


class Rows:
    """A log: row i is of id `ids[i]`."""

    def __init__(self, n: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.ids, self.vectors, self.ts = rng.integers(0, IDS, n), rng.normal(size=(n, WIDTH)).astype(np.float32), np.arange(n) * 3

    def blend(self, store: Store, start: int, end: int, decay: float | None) -> None:
        """Rows start .. end - 1, in one call."""
        part = slice(start, end)
        ids, vectors, ts = (torch.from_numpy(a[part]) for a in (self.ids, self.vectors, self.ts))
        store.blend(ids, vectors, decay, ts, Stamp("w", torch.arange(start, end), int(self.ts[end - 1])))


class Killed(Exception):
    """In the middle of a call."""


@contextlib.contextmanager
def killed(store: Store, after: int) -> Iterator[None]:
    """A client that dies behind so many scripts: before it learns of the last one. Other stores' calls are whole."""
    if not isinstance(store, RedisStore):
        yield
        return
    script, left = store._script, after

    def run(*given: Any) -> Any:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        found = script(*given)
        if left == 0:
            raise Killed
        return found

    store._script = run
    with contextlib.suppress(Killed):
        yield


cuts = st.lists(st.integers(1, 6), min_size=1, max_size=8)


def bounds(sizes: list[int]) -> list[tuple[int, int]]:
    ends = np.cumsum(sizes).tolist()
    return list(zip([0, *ends], ends, strict=False))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=cuts, again=cuts, seed=st.integers(0, 99), scripts=st.integers(0, 9), back=st.integers(0, 40))
def test_any_prefix_repeated_with_any_cuts(opener: Opener, first: list[int], again: list[int], seed: int, scripts: int, back: int) -> None:
    """Killed in the middle of a call; whoever comes begins anywhere before that, with other batches: each row counts once."""
    store, n = opener(), sum(first)
    store.clear()
    rows = Rows(n + sum(again), seed)
    for start, end in bounds(first):
        with killed(store, scripts if end == n else 10**6):
            rows.blend(store, start, end, None)
    came = opener()
    done = came.done("w")
    begin = max(0, done.upto + 1 - back)
    for start, end in bounds([*again, *[6] * 20]):
        if (low := begin + start) < len(rows.ids):
            rows.blend(came, low, min(begin + end, len(rows.ids)), None)
    oracle = Oracle(WIDTH, None)
    for i, one in enumerate(rows.ids.tolist()):
        oracle.write([one], rows.vectors[i : i + 1], [int(rows.ts[i])])
    found = came.get(torch.arange(IDS))
    assert found.counts.tolist() == [oracle.counts.get(i, 0) for i in range(IDS)]
    np.testing.assert_allclose(found.vectors.numpy(), [oracle.read(i) for i in range(IDS)], atol=1e-5)
    assert came.done("w") == Done(len(rows.ids) - 1, len(rows.ids) - 1)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=cuts, seed=st.integers(0, 99), at=st.integers(0, 7), scripts=st.integers(0, 4), back=st.integers(0, 3))
def test_batches_cut_where_they_were_give_the_same_bits(
    opener: Opener, sizes: list[int], seed: int, at: int, scripts: int, back: int
) -> None:
    """Which `done` tells: in what is newest and at every time."""
    store, batches = opener(), bounds(sizes)
    rows, at = Rows(sum(sizes), seed), at % len(sizes)

    def state() -> list[Any]:
        return [[part.tolist() for part in store.get(torch.arange(IDS), asof)] for asof in (None, *range(0, 160, 10))]

    store.clear()
    for start, end in batches:
        rows.blend(store, start, end, 0.8)
    expected = state()
    store.clear()
    for start, end in batches[:at]:
        rows.blend(store, start, end, 0.8)
    with killed(store, scripts):
        rows.blend(store, *batches[at], 0.8)
    store = opener()
    done = store.done("w")
    assert done.begun in (done.upto, batches[at][1] - 1)
    assert done.upto in (batches[at][0] - 1, batches[at][1] - 1)
    for start, end in batches[max(0, at - back) :]:
        rows.blend(store, start, end, 0.8)
    assert state() == expected


def test_writers_are_apart(opener: Opener) -> None:
    store = opener()
    store.clear()
    for writer in ("one", "other"):
        store.blend(torch.tensor([1]), torch.ones(1, WIDTH), 0.5, torch.tensor([3]), Stamp(writer, torch.tensor([8]), 3))
    assert store.get(torch.tensor([1])).counts.tolist() == [2]
    assert [store.done(w) for w in ("one", "other", "nobody")] == [Done(8, 8), Done(8, 8), Done(-1, -1)]
    store.clear()
    assert store.done("one") == Done(-1, -1)


def test_a_store_without_history_blends_once_too(tmp_path: Path, redis_url: str) -> None:
    for store in (MemoryStore(3, 1), Outside(f"lmdb:{tmp_path}/m", "h", 1, "a"), Outside(redis_url, "no history", 1, "a")):
        for _ in range(2):
            store.blend(torch.tensor([1, 2]), torch.ones(2, 1), 0.5, torch.tensor([3, 3]), Stamp("w", torch.tensor([7, 8]), 3))
        assert store.get(torch.tensor([1, 2])).counts.tolist() == [1, 1]


def test_a_call_that_comes_late_or_from_somebody_else_does_nothing(redis_url: str) -> None:
    """A server that was stopped takes what a client sent and gave up."""
    one, other = (RedisStore(redis_url, "late", 1, "a") for _ in range(2))
    given_ = (torch.tensor([1]), torch.ones(1, 1), 0.5, torch.tensor([3]))
    assert (one.done("w"), other.done("w")) == (Done(-1, -1), Done(-1, -1))
    one.blend(*given_, Stamp("w", torch.tensor([4]), 3))
    with pytest.raises(StoreError, match="store 'late': somebody else writes as 'w', or a call came late; try again"):
        other.blend(*given_, Stamp("w", torch.tensor([5]), 3))
    assert one.get(torch.tensor([1])).counts.tolist() == [1]
    other.blend(*given_, Stamp("w", torch.tensor([5]), 3))
    assert (one.get(torch.tensor([1])).counts.tolist(), other.done("w")) == ([2], Done(5, 5))


def test_a_script_that_the_client_sends_twice_is_run_once(redis_url: str) -> None:
    """As it does when an answer was lost."""
    store = RedisStore(redis_url, "twice", 1, "a")
    script = store._script
    store._script = lambda *given: [script(*given) for _ in range(2)][1]
    store.blend(torch.tensor([1]), torch.ones(1, 1), 0.5, torch.tensor([3]), Stamp("w", torch.tensor([4]), 3))
    assert (store.get(torch.tensor([1])).counts.tolist(), store.done("w")) == ([1], Done(4, 4))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.none() | st.integers(0, 5)), max_size=6))
def test_a_marker_against_the_set_of_what_is_done(calls: list[tuple[int, int | None]]) -> None:
    """Calls up to a row, cut short behind an id or not."""
    marker, done = Marker(), set[tuple[int, int]]()
    for end, reached in calls:
        marker = Marker.unpack(marker.moved(end, reached).pack())
        done |= {(row, i) for row in range(end + 1) for i in range(6) if reached is None or i <= reached}
        pairs = [(row, i) for row in range(15) for i in range(6)]
        fresh = marker.fresh(torch.tensor([p[0] for p in pairs]), torch.tensor([p[1] for p in pairs]))
        assert {p for p, new in zip(pairs, fresh.tolist(), strict=True) if not new} == done
        assert all((row, i) in done for row in range(marker.done.upto + 1) for i in range(6))
        assert all(row <= marker.done.begun for row, _ in done)
