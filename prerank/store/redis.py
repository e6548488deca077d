"""A store on a server, for many machines: Redis or Valkey (extra `redis`).

    users = RedisStore("redis://localhost:6379/0", "cms of user", width=64, space="encoders 0f3a..")

A blend runs on the server, as a script in Lua: trainers on many machines blend at once and lose nothing, which reading, computing and
writing from outside would. The price is the server's time, about 16 ms for 1,000 vectors of 64, so that
a call is cut into scripts of CHUNK ids, between which others get their turn. Numbers above 2^53 are not exact in Lua: times in
milliseconds are far below.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch import Tensor

from prerank.store.contract import Memory, SpaceError, StoreError, averaged, check_decay, check_width
from prerank.store.packed import pack, unpack

CHUNK = 256  # ids a script
BLEND = """
local width, decay = tonumber(ARGV[1]), tonumber(ARGV[2])
local floats = '<' .. string.rep('f', width)
for i, key in ipairs(KEYS) do
  local value = ARGV[i + 2]
  local held = redis.call('GET', key)
  if held then
    local n, at = struct.unpack('<i8i8', value)
    local before, last = struct.unpack('<i8i8', held)
    local new, old = {struct.unpack(floats, value, 17)}, {struct.unpack(floats, held, 17)}
    local keep = decay
    if keep == 0 then keep = before / (before + n) end
    local packed = {struct.pack('<i8i8', before + n, math.max(last, at))}
    for j = 1, width do packed[j + 1] = struct.pack('<f', keep * old[j] + (1 - keep) * new[j]) end
    value = table.concat(packed)
  end
  redis.call('SET', key, value)
end
return #KEYS
"""


class RedisStore:
    """See the module's first lines. Ids are any int64.

    url       redis://[:password@]host:port/db, or unix://path
    name      of the store on the server; its keys begin with it
    space     what its ids and vectors mean: a fingerprint of vocabulary and model
    timeout   seconds after which a server that does not answer counts as unreachable
    """

    def __init__(self, url: str, name: str, width: int, space: str, timeout: float = 5.0) -> None:
        """Raises StoreError when the server cannot be reached, or holds something else under the name."""
        check_width(width)
        self._redis = _redis()
        self.width, self.name = width, name
        claim = f"{width} {space}".encode()
        with self._reached():
            self._client: Any = self._redis.Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout)
            self._script = self._client.register_script(BLEND)
            self._client.set(f"{name} space", claim, nx=True)
            held = self._client.get(f"{name} space")
        if held != claim:
            raise SpaceError(f"store '{name}': must be of width and space '{claim.decode()}'; it holds '{held.decode()}'")

    def get(self, ids: Tensor) -> Memory:
        """[n] -> what is held of them, on the ids' device. Raises StoreError when the server cannot be reached."""
        keys = self._keys(ids)
        with self._reached():
            values = self._client.mget(keys) if keys else []
        return Memory(*(part.to(ids.device) for part in unpack(values, self.width, self.name)))

    def put(self, ids: Tensor, memory: Memory) -> None:
        """As given. Raises StoreError when the server cannot be reached."""
        values = dict(zip(self._keys(ids), pack(memory), strict=True))
        with self._reached():
            if values:
                self._client.mset(values)

    def blend(self, ids: Tensor, vectors: Tensor, decay: float | None, ts: Tensor) -> None:
        """See store/contract.py. Raises StoreError when the server cannot be reached, ValueError for a decay outside (0, 1)."""
        check_decay(decay)
        distinct, new = averaged(ids.cpu(), vectors.detach().float().cpu(), ts.cpu())
        keys, values = self._keys(distinct), pack(new)
        with self._reached():
            for i in range(0, len(keys), CHUNK):
                self._script(keys[i : i + CHUNK], [self.width, decay or 0, *values[i : i + CHUNK]])

    def clear(self) -> None:
        """Forget everything. Raises StoreError when the server cannot be reached."""
        with self._reached():
            for keys in self._scan():
                self._client.unlink(*keys)

    def __len__(self) -> int:
        """A walk over the server's keys: slow."""
        with self._reached():
            return sum(len(keys) for keys in self._scan())

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def __repr__(self) -> str:
        return f"<RedisStore {self.name} x {self.width}>"

    def _keys(self, ids: Tensor) -> list[bytes]:
        start = f"{self.name}:".encode()
        return [start + struct.pack(">q", one) for one in ids.tolist()]

    def _scan(self) -> Iterator[list[bytes]]:
        """The store's keys, each once, some at a time."""
        start = f"{self.name}:".encode()
        pattern = b"".join(b"\\" + bytes([c]) if c in b"*?[]\\" else bytes([c]) for c in start) + b"*"
        seen: set[bytes] = set()
        cursor = 0
        while True:
            cursor, keys = self._client.scan(cursor, match=pattern, count=1000)
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
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"store '{self.name}': cannot be reached: {str(error).splitlines()[0]}") from None


def _redis() -> ModuleType:
    try:
        import redis
    except ImportError:
        raise StoreError("store: the Redis client is not installed; pip install 'prerank[redis]'") from None
    found: ModuleType = redis
    return found
