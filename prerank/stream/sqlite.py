"""A log in one file, for the processes of one machine, with nothing to install: SQLite with a write-ahead log.

    log = SqliteLog("events.db", partitions=4)

A call of `append` is one transaction; processes that append at once wait for each other. With `sync` it has reached the disk
when it returns; without, it survives the process's own crash only. Readers never wait for writers.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from prerank.stream.log import TTL, Entry, Lease, LogError, NoLogError, beyond, check_partition, refuse, spread

POLL = 0.002, 0.02  # seconds between looks at a quiet log, from the first to the last
_SCHEMA = """
CREATE TABLE IF NOT EXISTS ends (partition INTEGER PRIMARY KEY, next INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS groups (name TEXT, partition INTEGER, next INTEGER NOT NULL, PRIMARY KEY (name, partition));
CREATE TABLE IF NOT EXISTS leases (
  name TEXT, partition INTEGER, owner TEXT NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (name, partition)
);
"""


class SqliteLog:
    """See the module's first lines and log.py.

    path         the file; made when it is not there
    partitions   of a new file 1; of one that is there, as it was made: another number is refused
    create       false: a file that is not there is an error
    sync         what was appended survives a power cut
    timeout      seconds to wait for other writers
    """

    def __init__(self, path: str | Path, partitions: int | None = None, *, create: bool = True, sync: bool = True,
                 timeout: float = 30.0) -> None:  # fmt: skip
        """Raises LogError when it cannot be opened, or is no log, or one of other partitions."""
        self.path = Path(path)
        self.name = os.fspath(path)
        self._lock = threading.RLock()
        if partitions is not None and partitions < 1:
            raise ValueError(f"partitions: must be at least 1; got {partitions}")
        if not create and not self.path.exists():
            raise NoLogError(f"log '{self.name}': there is no such file")
        with self._opened():
            self._db = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute(f"PRAGMA synchronous={'FULL' if sync else 'NORMAL'}")
            self._db.execute("PRAGMA wal_autocheckpoint=4000")
            self.partitions = self._made(partitions)

    def _made(self, partitions: int | None) -> int:
        with self._writing():
            for statement in filter(str.strip, _SCHEMA.split(";")):
                self._db.execute(statement)
            held = int(self._db.execute("SELECT count(*) FROM ends").fetchone()[0])
            if held == 0:
                for p in range(partitions or 1):
                    self._db.execute("INSERT INTO ends VALUES (?, 0)", (p,))
                    self._db.execute(f"CREATE TABLE p{p} (offset INTEGER PRIMARY KEY, ts INTEGER NOT NULL, data BLOB NOT NULL)")
        if held and partitions not in (None, held):
            raise LogError(f"log '{self.name}': must have {partitions} partitions; it was made with {held}")
        return held or partitions or 1

    def append(self, messages: Sequence[bytes], keys: Sequence[bytes] | None = None, *, partition: int | None = None) -> list[int]:
        """See log.py: one transaction over all partitions."""
        offsets = [0] * len(messages)
        where = spread(messages, keys, partition, self.partitions)
        if not where:
            return offsets
        with self._writing():
            now = _now()
            for p, which in where.items():
                (first,) = self._db.execute("SELECT next FROM ends WHERE partition = ?", (p,)).fetchone()
                rows = [(first + n, now, messages[i]) for n, i in enumerate(which)]
                self._db.executemany(f"INSERT INTO p{p} VALUES (?, ?, ?)", rows)
                self._db.execute("UPDATE ends SET next = ? WHERE partition = ?", (first + len(rows), p))
                for n, i in enumerate(which):
                    offsets[i] = first + n
        return offsets

    def read(self, partition: int, offset: int, limit: int = 1000, wait: float = 0.0) -> list[Entry]:
        """See log.py. A log of one file is looked at every few milliseconds while it is quiet."""
        check_partition(partition, self.partitions)
        deadline, pause = time.monotonic() + wait, POLL[0]
        query = f"SELECT offset, ts, data FROM p{partition} WHERE offset >= ? ORDER BY offset LIMIT ?"
        while True:
            with self._reading():
                found = [Entry._make(row) for row in self._db.execute(query, (offset, limit))]
            if found:
                return found
            left = deadline - time.monotonic()
            if left <= 0:
                end = self.end(partition)
                if end < offset:
                    raise beyond(self.name, partition, offset, end)
                return []
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, POLL[1])

    def start(self, partition: int) -> int:
        """See log.py."""
        check_partition(partition, self.partitions)
        with self._reading():
            (first,) = self._db.execute(f"SELECT min(offset) FROM p{partition}").fetchone()
        return self.end(partition) if first is None else int(first)

    def end(self, partition: int) -> int:
        """See log.py."""
        check_partition(partition, self.partitions)
        with self._reading():
            return int(self._db.execute("SELECT next FROM ends WHERE partition = ?", (partition,)).fetchone()[0])

    def commit(self, group: str, partition: int, offset: int) -> None:
        """See log.py."""
        check_partition(partition, self.partitions)
        with self._writing():
            self._db.execute("INSERT OR REPLACE INTO groups VALUES (?, ?, ?)", (group, partition, offset))

    def committed(self, group: str, partition: int) -> int | None:
        """See log.py."""
        with self._reading():
            row = self._db.execute("SELECT next FROM groups WHERE name = ? AND partition = ?", (group, partition)).fetchone()
        return None if row is None else int(row[0])

    def trim(self, partition: int, *, before: int | None = None, older: int | None = None) -> None:
        """See log.py. The file does not shrink: freed pages are used again."""
        check_partition(partition, self.partitions)
        with self._writing():
            if before is not None:
                self._db.execute(f"DELETE FROM p{partition} WHERE offset < ?", (before,))
            if older is not None:  # entries lie in order of offset, which is that of time: the first young one ends it
                young = f"(SELECT offset FROM p{partition} WHERE ts >= ? ORDER BY offset LIMIT 1)"
                self._db.execute(f"DELETE FROM p{partition} WHERE ts < ? AND offset < coalesce({young}, offset + 1)", (older, older))

    def claim(self, group: str, partition: int, owner: str, ttl: float = TTL) -> Lease:
        """See log.py. Time is the machine's, which all processes of the file share."""
        check_partition(partition, self.partitions)
        with self._writing():
            now = _now()
            held = self._db.execute("SELECT owner, until FROM leases WHERE name = ? AND partition = ?", (group, partition)).fetchone()
            if held is not None and held[0] != owner and held[1] > now:
                raise refuse(self.name, group, partition, held[0], (held[1] - now) / 1000)
            until = now + round(ttl * 1000)
            self._db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)", (group, partition, owner, until))
        return Lease(self, group, partition, owner, ttl)

    def release(self, group: str, partition: int, owner: str) -> None:
        """See log.py."""
        with self._writing():
            self._db.execute("DELETE FROM leases WHERE name = ? AND partition = ? AND owner = ?", (group, partition, owner))

    def close(self) -> None:
        """See log.py."""
        with self._lock:
            self._db.close()

    def __repr__(self) -> str:
        return f"<SqliteLog {self.name}: {self.partitions} partitions>"

    @contextmanager
    def _opened(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LogError(f"log '{self.name}': {error}") from None

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock, self._opened():
            yield

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction, whole or not at all."""
        with self._lock, self._opened():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk has rolled back already
                    self._db.execute("ROLLBACK")
                raise


def _now() -> int:
    return time.time_ns() // 1_000_000
