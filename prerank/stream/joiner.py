"""Label waiting as a process: events in, rows and dead letters out, each once, through crashes and outages.

    joiner = Joiner(open_log("sqlite:///events.db"), open_log("sqlite:///rows.db"), Waiting(kinds={"click": "10m"}), "labels")
    joiner.run(stop=lambda: False)

Several joiners share the partitions of a log by leases: what one leaves, by stopping or by dying, another takes up. State lies in the
folder; joiners of several machines want one that all of them reach, else whoever takes over reads the events again from the oldest.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from prerank.schema import Schema
from prerank.stream import log as logs
from prerank.stream import typed
from prerank.stream.log import LeaseError, Log, LogError
from prerank.stream.part import Part
from prerank.stream.settings import Waiting

BACKOFF = 0.1, 5.0  # seconds between tries while a log is away, from the first to the longest
CLAIM = 1.0  # seconds between tries to have a partition that another has


class Joiner:
    """See the module's first lines.

    rows         of as many partitions as events: a partition's rows go to the same one
    dead         where events that could not be used go, with the reason; none: they are counted only
    partitions   of the events, to try for; none: all
    schema       features of wrong types make an event a dead letter
    every        seconds between states on disk: so much is read again after a crash
    idle         seconds after which a quiet partition's time goes on (`Tick`); none: windows close by events alone
    retain       ms after which events are trimmed, once they are part of a state on disk
    """

    def __init__(self, events: Log, rows: Log, settings: Waiting, folder: str | Path, *, dead: Log | None = None,
                 partitions: Sequence[int] | None = None, group: str = "labels", schema: Schema | None = None, every: float = 10.0,
                 idle: float | None = None, retain: int | None = None, ttl: float = logs.TTL) -> None:  # fmt: skip
        """Raises ValueError when logs or settings do not fit together."""
        n = events.partitions
        for log in (rows, dead):
            if log is not None and log.partitions != n:
                raise ValueError(f"log '{log.name}': must have as many partitions as '{events.name}', {n}; got {log.partitions}")
        self.partitions = tuple(range(n) if partitions is None else partitions)
        for p in self.partitions:
            logs.check_partition(p, n)
        self.events, self.rows, self.dead, self.settings, self.folder = events, rows, dead, settings, Path(folder)
        self.group, self.every, self.idle, self.retain, self.ttl = group, every, idle, retain, ttl
        self.parts: dict[int, Part] = {}
        self._decoder = None if schema is None else typed.decoder(schema)
        self._claim_at = self._save_at = 0.0
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT)
        self.owner = self._name()

    def run(self, stop: Callable[[], bool], say: Callable[[str], None] = lambda line: None,
            last: Callable[[dict[str, int]], None] = lambda counts: None) -> None:  # fmt: skip
        """Until `stop` says so; `last` is told the counts at the end.

        A log that is away and a full disk are told of and tried again, after longer and longer pauses. Raises StateError, SavedError.
        """
        pause = BACKOFF[0]
        while not stop():
            try:
                self.step(0.2)
            except LeaseError as error:
                say(str(error))
            except (LogError, OSError) as error:
                say(f"{error}; next try in {pause:.1f} s")
                _sleep(pause, stop)
                pause = min(2 * pause, BACKOFF[1])
            else:
                pause = BACKOFF[0]
        last(self.counts())
        self.close()

    def at_end(self) -> bool:
        """All partitions are ours and read to their end. False while a log is away."""
        try:
            return len(self.parts) == len(self.partitions) and all(part.lag == 0 for part in self.parts.values())
        except LogError:
            return False

    def step(self, wait: float = 0.0) -> int:
        """Some entries of every partition that is ours -> how many; waits at most so many seconds when there are none. Raises LogError."""
        self._claim()
        read = 0
        for part in list(self.parts.values()):
            try:
                read += part.step(0.0)
            except LeaseError:  # another took it while we slept: what it does not have, it makes itself
                del self.parts[part.partition]
                raise
        now = time.monotonic()
        if read == 0:
            self._rest(wait)
        if now >= self._save_at:
            self._save_at = now + self.every
            self.save()
        return read

    def save(self) -> None:
        """States to disk, offsets to the log. Raises LogError, OSError."""
        for part in self.parts.values():
            part.save(self.group, self.retain)

    def close(self) -> None:
        """A last save where that is possible; then others may have the partitions."""
        with suppress(LogError, OSError):
            self.save()
        for part in self.parts.values():
            with suppress(LogError):
                part.release()
        self.parts.clear()
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def counts(self) -> dict[str, int]:
        """What happened, over the partitions that are ours (see waiting.COUNTS), `lost` and `in memory` beside."""
        found: Counter[str] = Counter()
        for part in self.parts.values():
            found.update(part.waiting.counts)
            found.update({"lost": part.lost, "in memory": len(part.waiting)})
        return dict(found)

    def _name(self) -> str:
        """Who we are to the log. Alone in its folder, a joiner has the name of the one before: he is dead, as the kernel knows, so that his
        leases need not run out.
        """
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another is there, or the file system has no locks
            return logs.owner()
        return f"{socket.gethostname()}:{self.folder.resolve()}"

    def _claim(self) -> None:
        """Tries for partitions that are not ours, now and then."""
        now = time.monotonic()
        if len(self.parts) == len(self.partitions) or now < self._claim_at:
            return
        self._claim_at = now + min(CLAIM, self.ttl / 5)
        for p in self.partitions:
            if p not in self.parts:
                with suppress(LeaseError):
                    lease = self.events.claim(self.group, p, self.owner, self.ttl)
                    self.parts[p] = Part(p, self.events, self.rows, self.dead, self.settings, self._decoder, self.folder, lease)

    def _rest(self, wait: float) -> None:
        """Nothing came: time goes on, and we wait for what comes."""
        for part in self.parts.values():
            if self.idle is not None:
                part.tick(self.idle)
        if not self.parts:
            time.sleep(wait)
        for part in list(self.parts.values()):
            if part.step(wait / len(self.parts)):
                return


def _sleep(seconds: float, stop: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not stop():
        time.sleep(min(0.1, seconds))
