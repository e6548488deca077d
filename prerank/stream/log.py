"""What every event log does: messages in partitions, each with an offset that ascends; whoever reads keeps its own place.

    log.append([b"..."], keys=[b"r1"])        -> [offset]            durable when it returns
    log.read(partition, offset, limit, wait)  -> [Entry]             from that offset on; waits so many seconds when there is none
    log.commit(group, partition, offset)      log.committed(...)     where a group goes on
    log.claim(group, partition, owner)        -> Lease               a second owner is refused while it lives
    log.trim(partition, before=, older=)                             retention

A key decides the partition (crc32 of the key, modulo the number of partitions), and inside a partition order is kept. A call that raised
may have appended some or all (the answer was lost), so that whoever repeats it repeats messages: label waiting and `Rows` drop what
they have seen.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

TTL = 30.0  # seconds that a lease lives without being renewed


class LogError(ValueError):
    """A log cannot be reached, is full, or holds something else than was asked of it; the message names it and says why."""


class NoLogError(LogError):
    """There is no such log, and it was not to be made."""


class LeaseError(LogError):
    """Another owner has the partition."""


class Entry(NamedTuple):
    """A message of a partition: its offset, when it was appended (ms, by the log's clock), and what it says."""

    offset: int
    ts: int
    data: bytes


class Log(Protocol):
    """See the module's first lines. All of it may be called from any thread.

    name         for messages
    partitions   how many
    """

    name: str
    partitions: int

    def append(self, messages: Sequence[bytes], keys: Sequence[bytes] | None = None, *, partition: int | None = None) -> list[int]:
        """Offsets of the messages, each in its partition: the one given, or its key's, or (without keys) its own bytes'.

        Raises LogError.
        """
        ...

    def read(self, partition: int, offset: int, limit: int = 1000, wait: float = 0.0) -> list[Entry]:
        """At most `limit` entries from `offset` on, or from the oldest one that is left. Raises LogError, also for an offset beyond
        the end: a log that lost its end must not look like a quiet one."""
        ...

    def start(self, partition: int) -> int:
        """Offset of the oldest entry that is left; the end when there is none."""
        ...

    def end(self, partition: int) -> int:
        """Offset that the next entry will have, or more."""
        ...

    def commit(self, group: str, partition: int, offset: int) -> None:
        """The group goes on at `offset`; an earlier one is taken as well (a group that reads again)."""
        ...

    def committed(self, group: str, partition: int) -> int | None:
        """None where the group never committed."""
        ...

    def trim(self, partition: int, *, before: int | None = None, older: int | None = None) -> None:
        """Forget entries with offsets below `before`, and those appended before `older` (ms); offsets are not used again."""
        ...

    def claim(self, group: str, partition: int, owner: str, ttl: float = TTL) -> Lease:
        """Raises LeaseError while another owner's lease lives. The same owner's own is renewed."""
        ...

    def release(self, group: str, partition: int, owner: str) -> None:
        """Ends the owner's lease, if it still has it."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


class Lease:
    """A partition that is ours while we renew.

    owner   a name that no other process has: `owner()`
    """

    def __init__(self, log: Log, group: str, partition: int, owner: str, ttl: float) -> None:
        self._log, self.group, self.partition, self.owner, self.ttl = log, group, partition, owner, ttl
        self._until = time.monotonic() + ttl / 3

    def renew(self) -> None:
        """Call it often; it asks the log when a third of the time is over. Raises LeaseError when another owner came in between."""
        if time.monotonic() >= self._until:
            self._log.claim(self.group, self.partition, self.owner, self.ttl)
            self._until = time.monotonic() + self.ttl / 3

    def release(self) -> None:
        """Another may have it."""
        self._log.release(self.group, self.partition, self.owner)

    def __repr__(self) -> str:
        return f"<Lease {self.group} {self.partition}: {self.owner}>"


def owner() -> str:
    """A name for this process that nobody else has, and that says where it is."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def partition_of(key: bytes, partitions: int) -> int:
    """Which partition a key belongs to.

    >>> partition_of(b"r1", 1), partition_of(b"123456789", 10) == 0xCBF43926 % 10
    (0, True)
    """
    return zlib.crc32(key) % partitions


def spread(messages: Sequence[bytes], keys: Sequence[bytes] | None, partition: int | None, partitions: int) -> Mapping[int, Sequence[int]]:
    """{partition: which of the messages}. Raises ValueError for a partition that there is not, or keys of another number."""
    if partition is not None:
        check_partition(partition, partitions)
        return {partition: range(len(messages))} if messages else {}
    if keys is not None and len(keys) != len(messages):
        raise ValueError(f"keys: must be one a message, {len(messages)}; got {len(keys)}")
    if partitions == 1:
        return {0: range(len(messages))} if messages else {}
    found: dict[int, list[int]] = {}
    for i, key in enumerate(messages if keys is None else keys):
        found.setdefault(partition_of(key, partitions), []).append(i)
    return found


def check_partition(partition: int, partitions: int) -> None:
    """Raise ValueError for a partition that there is not."""
    if not 0 <= partition < partitions:
        raise ValueError(f"partition: must be from 0 to {partitions - 1}; got {partition}")


def refuse(name: str, group: str, partition: int, holder: str, seconds: float) -> LeaseError:
    """The one sentence for a partition that another has."""
    left = f"{max(seconds, 0):.0f} more seconds"
    return LeaseError(f"log '{name}': partition {partition} belongs to '{holder}' in group '{group}' for {left}")


def beyond(name: str, partition: int, offset: int, end: int) -> LogError:
    """The one sentence for a log that ends before what was read of it."""
    return LogError(f"log '{name}': partition {partition} ends at {end}, before offset {offset} that was asked for: it lost entries")
