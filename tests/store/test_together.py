"""Several memories at once: what each store says, in one round trip for each server."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from prerank.store import History, LmdbFile, MemoryStore, Outside, RedisStore, Request, Stamp, Store, StoreError, gather


def test_each_is_what_its_store_says(redis_url: str, tmp_path: Path) -> None:
    history = History(10, 40)
    stores: list[Store] = [
        RedisStore(redis_url, "liked", 2, "a", history), MemoryStore(9, 3, history), Outside(redis_url, "taught", 4, "a", history),
        LmdbFile(tmp_path / "m", map_size=1 << 20).store("s", 2, "a", history),
    ]  # fmt: skip
    for n, store in enumerate(stores):
        for known in (20, 30):
            ids = torch.tensor([1, 5])
            store.blend(ids, torch.full((2, store.width), float(n + known)), 0.5, torch.tensor([known, known]),
                        Stamp("w", torch.tensor([known, known + 1]), known))  # fmt: skip
    requests = [Request(store, torch.tensor(ids), asof) for store in stores for ids in ([5], [], [1, 2, 5]) for asof in (None, 35)]
    for (store, ids, asof), found in zip(requests, gather(requests), strict=True):
        for one, other in zip(found, store.get(ids, asof), strict=True):
            assert torch.equal(one, other)
    assert gather([]) == []


def test_stores_of_one_server_are_read_in_one_trip(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = [RedisStore(redis_url, name, 2, "a") for name in ("x", "y", "z")]
    trips: list[str] = []
    for store in stores:
        execute = store.client.execute_command
        monkeypatch.setattr(store.client, "execute_command", lambda *a, _execute=execute, **k: (trips.append(a[0]), _execute(*a, **k))[1])
    gather([Request(store, torch.arange(5)) for store in stores])
    assert trips == ["MGET"]


def test_a_server_that_is_gone_is_told() -> None:
    with pytest.raises(StoreError, match="cannot be reached"):
        gather([Request(Outside("redis://127.0.0.1:1/0", "a", 2, "s"), torch.tensor([1]))])
