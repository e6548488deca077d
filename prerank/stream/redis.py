"""A log on a server, for many machines: streams of Redis or Valkey (extra `redis`).

    log = RedisLog("redis://localhost:6379/0", "events", partitions=4)

A partition is a stream, and an entry's id its offset + 1 and its time. An append is a script on the server, in chunks of CHUNK
messages: it gives dense offsets and the server's time, and lies there whole or not at all. How durable it is, is the server's
setting: `appendonly yes` with `appendfsync always` writes before it answers, `everysec` may lose the last second when the server's
machine dies. Of a server that came back without its end, `read` says so rather than wait for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from prerank.stream.log import TTL, Entry, Lease, LogError, NoLogError, beyond, check_partition, refuse, spread

CHUNK = 1000  # messages a script: others get their turn in between
_APPEND = """
local t = redis.call('TIME')
local ms = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
local first = tonumber(redis.call('GET', KEYS[2]) or '0')
for i, data in ipairs(ARGV) do redis.call('XADD', KEYS[1], string.format('%.0f-%s', first + i, ms), 'd', data) end
redis.call('SET', KEYS[2], string.format('%.0f', first + #ARGV))
return first
"""
_CLAIM = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return {held, redis.call('PTTL', KEYS[1])} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"
# The first entry that is young enough, looked for from the oldest on.
_OLDER = """
local from = '-'
while true do
  local found = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 500)
  if #found == 0 then return redis.call('XTRIM', KEYS[1], 'MAXLEN', 0) end
  for _, entry in ipairs(found) do
    if tonumber(string.match(entry[1], '-(%d+)')) >= tonumber(ARGV[1]) then return redis.call('XTRIM', KEYS[1], 'MINID', entry[1]) end
  end
  from = '(' .. found[#found][1]
end
"""


class RedisLog:
    """See the module's first lines and log.py.

    url          redis://[:password@]host:port/db, rediss://.. or unix://path
    name         of the log on the server; its keys begin with it
    partitions   of a new log 1; of one that is there, as it was made: another number is refused
    create       false: a log that is not there is an error
    timeout      seconds after which a server that does not answer counts as unreachable
    """

    def __init__(self, url: str, name: str = "events", partitions: int | None = None, *, create: bool = True, timeout: float = 5.0) -> None:
        """Raises LogError when the server cannot be reached, or holds a log of other partitions under the name."""
        if partitions is not None and partitions < 1:
            raise ValueError(f"partitions: must be at least 1; got {partitions}")
        self._redis = _redis()
        self.name, self._timeout = name, timeout
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        with self._reached():  # no retries of the client's own: a repeated script would append twice
            self._client: Any = self._redis.Redis.from_url(
                url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0)
            )
            self._append, self._claim, self._release, self._older = map(self._client.register_script, (_APPEND, _CLAIM, _RELEASE, _OLDER))
            if create:
                self._client.set(self._key("partitions"), partitions or 1, nx=True)
            held = self._client.get(self._key("partitions"))
        if held is None:
            raise NoLogError(f"log '{name}': the server has none of that name")
        self.partitions = int(held)
        if partitions not in (None, self.partitions):
            raise LogError(f"log '{name}': must have {partitions} partitions; it was made with {self.partitions}")

    def append(self, messages: Sequence[bytes], keys: Sequence[bytes] | None = None, *, partition: int | None = None) -> list[int]:
        """See log.py. More than CHUNK messages are several scripts: after an error, the first of them may be there."""
        offsets = [0] * len(messages)
        with self._reached():
            for p, which in spread(messages, keys, partition, self.partitions).items():
                for begin in range(0, len(which), CHUNK):
                    part = which[begin : begin + CHUNK]
                    first = self._append([self._key(p), self._key(p, "end")], [messages[i] for i in part])
                    for n, i in enumerate(part):
                        offsets[i] = int(first) + n
        return offsets

    def read(self, partition: int, offset: int, limit: int = 1000, wait: float = 0.0) -> list[Entry]:
        """See log.py. The server wakes who waits; it waits at most half the time-out at once."""
        check_partition(partition, self.partitions)
        block = min(round(wait * 1000), round(self._timeout * 500)) or None
        with self._reached():
            found = self._client.xread({self._key(partition): f"{offset}-{2**63 - 1}"}, count=limit, block=block)
        if not found:
            end = self.end(partition)
            if end < offset:
                raise beyond(self.name, partition, offset, end)
            return []
        entries = found[0][1] if isinstance(found, list) else next(iter(found.values()))[0]
        return [_entry(id_, fields[b"d"]) for id_, fields in entries]

    def start(self, partition: int) -> int:
        """See log.py."""
        check_partition(partition, self.partitions)
        with self._reached():
            first = self._client.xrange(self._key(partition), count=1)
        return _entry(first[0][0], b"").offset if first else self.end(partition)

    def end(self, partition: int) -> int:
        """See log.py."""
        check_partition(partition, self.partitions)
        with self._reached():
            return int(self._client.get(self._key(partition, "end")) or 0)

    def commit(self, group: str, partition: int, offset: int) -> None:
        """See log.py."""
        check_partition(partition, self.partitions)
        with self._reached():
            self._client.hset(self._key("groups"), f"{partition} {group}", offset)

    def committed(self, group: str, partition: int) -> int | None:
        """See log.py."""
        with self._reached():
            found = self._client.hget(self._key("groups"), f"{partition} {group}")
        return None if found is None else int(found)

    def trim(self, partition: int, *, before: int | None = None, older: int | None = None) -> None:
        """See log.py."""
        check_partition(partition, self.partitions)
        with self._reached():
            if before is not None:
                self._client.xtrim(self._key(partition), minid=f"{before + 1}-0", approximate=False)
            if older is not None:
                self._older([self._key(partition)], [older])

    def claim(self, group: str, partition: int, owner: str, ttl: float = TTL) -> Lease:
        """See log.py. Time is the server's."""
        check_partition(partition, self.partitions)
        with self._reached():
            held = self._claim([self._key(partition, f"lease {group}")], [owner, round(ttl * 1000)])
        if held:
            raise refuse(self.name, group, partition, held[0].decode(), held[1] / 1000)
        return Lease(self, group, partition, owner, ttl)

    def release(self, group: str, partition: int, owner: str) -> None:
        """See log.py."""
        with self._reached():
            self._release([self._key(partition, f"lease {group}")], [owner])

    def close(self) -> None:
        """See log.py."""
        self._client.close()

    def __repr__(self) -> str:
        return f"<RedisLog {self.name}: {self.partitions} partitions>"

    def _key(self, part: int | str, *what: str) -> str:
        """Braces keep the keys of a partition on one node of a cluster."""
        return " ".join((f"{{log {self.name} {part}}}", *what))

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (self._redis.RedisError, OSError) as error:
            said = str(error).splitlines() or [type(error).__name__]
            raise LogError(f"log '{self.name}': cannot be reached: {said[0]}") from None


def _entry(id_: bytes, data: bytes) -> Entry:
    offset, _, ts = id_.partition(b"-")
    return Entry(int(offset) - 1, int(ts), data)


def _redis() -> ModuleType:
    try:
        import redis
    except ImportError:
        raise LogError("log: the Redis client is not installed; pip install 'prerank[redis]'") from None
    found: ModuleType = redis
    return found
