"""What is Redis's own: a server that is gone or holds something else, and writers at once."""

from __future__ import annotations

import threading

import pytest
import torch

from prerank.store import RedisStore, StoreError


def test_a_server_that_is_not_there_is_told(tmp_path):
    with pytest.raises(StoreError, match="store 'cms': cannot be reached"):
        RedisStore(f"unix://{tmp_path}/none", "cms", 2, "s", timeout=1)
    with pytest.raises(StoreError, match="store 'cms': cannot be reached"):
        RedisStore("nothing", "cms", 2, "s")


@pytest.mark.parametrize(("width", "space"), [(3, "s"), (2, "other")])
def test_another_width_or_space_is_refused(redis_url, width, space):
    RedisStore(redis_url, "claimed", 2, "s").close()
    with pytest.raises(StoreError, match=f"must be of width and space '{width} {space}'; it holds '2 s'"):
        RedisStore(redis_url, "claimed", width, space)


def test_writers_at_once_lose_nothing(redis_url):
    def write() -> None:
        store = RedisStore(redis_url, "many", 2, "s")
        for _ in range(50):
            store.blend(torch.arange(300), torch.ones(300, 2), None, torch.ones(300, dtype=torch.int64))
        store.close()

    threads = [threading.Thread(target=write) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    store = RedisStore(redis_url, "many", 2, "s")
    assert set(store.get(torch.arange(300)).counts.tolist()) == {150}
    assert len(store) == 300
    store.clear()
    store.close()
