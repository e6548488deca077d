"""A store on a server, for many machines: Redis or Valkey (extra `redis`).

    users = RedisStore("redis://localhost:6379/0", "cms of user", width=64, space="encoders 0f3a..")

A blend runs on the server, as a script in Lua: trainers on many machines blend at once and lose nothing, which reading, computing and
writing from outside would. The price is the server's time, about 16 ms for 1,000 vectors of 64, so that
a call is cut into scripts of CHUNK ids, between which others get their turn. Numbers above 2^53 are not exact in Lua: times in
milliseconds are far below. A script also writes down how far the writer has come, in ids that ascend, so that a call that was cut short
is gone on from where it was (stamp.py), and does nothing when it has been run before, or comes late. Of 1,024 ids, with ticks of a
minute of which 15 are kept and a batch every 5 s (`benchmarks/store_history.py`): blending took 38 ms (19 without history), of which 4
were this process's, reading 13, as of a time 16, of which 5 were.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch import Tensor

from prerank.store.claim import agreed, claim, ticks
from prerank.store.contract import Memory, StoreError, averaged, check_decay, check_width
from prerank.store.history import History, check_history, ticked
from prerank.store.lua import BLEND
from prerank.store.packed import pack, unpack
from prerank.store.stamp import Done, Marker, Stamp

CHUNK = 256  # ids a script


class RedisStore:
    """See the module's first lines. Ids are any int64.

    url       redis://[:password@]host:port/db, or unix://path
    name      of the store on the server; its keys begin with it
    space     what its ids and vectors mean: a fingerprint of vocabulary and model
    history   how far back it can be read; None: as whoever made it said
    timeout   seconds after which a server that does not answer counts as unreachable
    """

    def __init__(self, url: str, name: str, width: int, space: str, history: History | None = None, timeout: float = 5.0) -> None:
        """Raises StoreError when the server cannot be reached, or holds something else under the name."""
        check_width(width)
        check_history(history)
        self._redis = _redis()
        self.url, self.width, self.name = url, width, name
        self._done, self._markers = f"{name} done".encode(), dict[str, Marker]()
        said, of_time = claim(width, space), ticks(history)
        with self._reached():
            self.client: Any = self._redis.Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout)
            self._script = self.client.register_script(BLEND)
            self.client.set(f"{name} space", said, nx=True)
            agreed(name, said, self.client.get(f"{name} space"), None, None)
            if of_time is not None:
                self.client.set(f"{name} history", of_time, nx=True)
            self.history = agreed(name, said, None, history, self.client.get(f"{name} history"))

    def get(self, ids: Tensor, asof: int | None = None) -> Memory:
        """[n] -> what is held of them, or was known at a time, on the ids' device. Raises StoreError when the server cannot be reached,
        ValueError for a time without a history."""
        ticked(self.history, asof)
        return self.read(ids, self.fetch(self.keys(ids)), asof)

    def fetch(self, keys: list[bytes]) -> list[bytes | None]:
        """Values of keys of the server, in one round trip. Raises StoreError when the server cannot be reached."""
        with self._reached():
            return self.client.mget(keys) if keys else []

    def read(self, ids: Tensor, values: list[bytes | None], asof: int | None) -> Memory:
        """What fetched values of ids say. Raises StoreError, ValueError."""
        return Memory(*(part.to(ids.device) for part in unpack(values, self.width, self.name, ticked(self.history, asof))))

    def keys(self, ids: Tensor) -> list[bytes]:
        """Under which ids lie on the server."""
        start = f"{self.name}:".encode()
        return [start + struct.pack(">q", one) for one in ids.tolist()]

    def put(self, ids: Tensor, memory: Memory) -> None:
        """As given. Raises StoreError when the server cannot be reached."""
        values = dict(zip(self.keys(ids), pack(memory), strict=True))
        with self._reached():
            if values:
                self.client.mset(values)

    def blend(self, ids: Tensor, vectors: Tensor, decay: float | None, ts: Tensor, stamp: Stamp | None = None) -> None:
        """See store/contract.py. Raises StoreError when the server cannot be reached, ValueError for a decay outside (0, 1)."""
        check_decay(decay)
        if len(ids) == 0:
            return
        ids, vectors, ts = ids.cpu(), vectors.detach().float().cpu(), ts.cpu()
        with self._reached():
            if stamp is None:
                for some, states in _chunks(*averaged(ids, vectors, ts)):
                    self._script([self._done, *self.keys(some)], [self.width, decay or 0, "", "", "", "", "", *states])
                return
            marker, end = self._marker(stamp.writer), int(stamp.offsets.max())
            fresh = marker.fresh(stamp.offsets.cpu(), ids)
            chunks = list(_chunks(*averaged(ids[fresh], vectors[fresh], ts[fresh]))) or [(ids[:0], [])]
            for n, (some, states) in enumerate(chunks, 1):
                before, marker = marker, marker.moved(end, None if n == len(chunks) else int(some[-1]))
                self._blend(some, states, decay, stamp, before, marker)

    def done(self, writer: str) -> Done:
        """How far a writer has come. Raises StoreError when the server cannot be reached."""
        with self._reached():
            return self._marker(writer).done

    def clear(self) -> None:
        """Forget everything. Raises StoreError when the server cannot be reached."""
        with self._reached():
            for keys in self._scan():
                self.client.unlink(*keys)
            self.client.delete(self._done)
            self._markers.clear()

    def __len__(self) -> int:
        """A walk over the server's keys: slow."""
        with self._reached():
            return sum(len(keys) for keys in self._scan())

    def close(self) -> None:
        """Let go of the connections."""
        self.client.close()

    def __repr__(self) -> str:
        return f"<RedisStore {self.name} x {self.width}>"

    def _marker(self, writer: str) -> Marker:
        """As far as this process knows; read when it is opened, and after whatever went wrong."""
        if writer not in self._markers:
            self._markers[writer] = Marker.unpack(self.client.hget(self._done, writer))
        return self._markers[writer]

    def _blend(self, ids: Tensor, states: list[bytes], decay: float | None, stamp: Stamp, before: Marker, after: Marker) -> None:
        if after == before:
            return
        time: list[Any] = ["", ""]
        if self.history is not None:
            tick = self.history.at(stamp.known)
            time = [tick, self.history.oldest(tick)]
        known = b"" if before == Marker() else before.pack()
        arguments = [self.width, decay or 0, *time, stamp.writer, known, after.pack(), *states]
        if not self._script([self._done, *self.keys(ids)], arguments) and self.client.hget(self._done, stamp.writer) != after.pack():
            self._markers.pop(stamp.writer)
            raise StoreError(f"store '{self.name}': somebody else writes as '{stamp.writer}', or a call came late; try again")
        self._markers[stamp.writer] = after

    def _scan(self) -> Iterator[list[bytes]]:
        """The store's keys, each once, some at a time."""
        start = f"{self.name}:".encode()
        pattern = b"".join(b"\\" + bytes([c]) if c in b"*?[]\\" else bytes([c]) for c in start) + b"*"
        seen: set[bytes] = set()
        cursor = 0
        while True:
            cursor, keys = self.client.scan(cursor, match=pattern, count=1000)
            fresh = [key for key in dict.fromkeys(keys) if key not in seen]
            seen.update(fresh)
            if fresh:
                yield fresh
            if cursor == 0:
                return

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (self._redis.RedisError, ValueError) as error:
            self._markers.clear()
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"store '{self.name}': cannot be reached: {str(error).splitlines()[0]}") from None


def _chunks(ids: Tensor, new: Memory) -> Iterator[tuple[Tensor, list[bytes]]]:
    """CHUNK ids at a time, which ascend, and their states."""
    for i in range(0, len(ids), CHUNK):
        yield ids[i : i + CHUNK], pack(Memory(*(part[i : i + CHUNK] for part in new)))


def _redis() -> ModuleType:
    try:
        import redis
    except ImportError:
        raise StoreError("store: the Redis client is not installed; pip install 'prerank[redis]'") from None
    found: ModuleType = redis
    return found
