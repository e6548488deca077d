"""Several memories in one round trip: what a server reads of a user for one request, which lies in several stores.

    liked, disliked, taught = gather([Request(c_u, users), Request(c_u_negative, users), Request(s_u, users)])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from prerank.store.contract import Memory, Store
from prerank.store.outside import Outside
from prerank.store.redis import RedisStore


class Request(NamedTuple):
    """Arguments of `Store.get`: ids [n], and as of when."""

    store: Store
    ids: Tensor
    asof: int | None = None


def gather(requests: Sequence[Request]) -> list[Memory]:
    """What `get` would say of each: one round trip for each Redis server, other stores one after another. Raises StoreError, ValueError."""
    opened = [r._replace(store=r.store.opened()) if isinstance(r.store, Outside) else r for r in requests]
    keys: dict[str, list[bytes]] = {}
    servers: dict[str, RedisStore] = {}
    for store, ids, _ in opened:
        if isinstance(store, RedisStore):
            servers.setdefault(store.url, store)
            keys.setdefault(store.url, []).extend(store.keys(ids))
    values = {url: iter(server.fetch(keys[url])) for url, server in servers.items()}
    found = []
    for store, ids, asof in opened:
        if isinstance(store, RedisStore):
            found.append(store.read(ids, [next(values[store.url]) for _ in range(len(ids))], asof))
        else:
            found.append(store.get(ids, asof))
    return found
