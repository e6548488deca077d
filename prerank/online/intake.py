"""A process's part of the log of rows: partitions that it has claimed, and of one of them at a time the rows of a batch.

    intake.more(wait)          what has come, up to `size` rows, into intake.found
    intake.keep()              they are learned: `learned` moves behind them, and the next partition has its turn

`learned` is what a checkpoint holds; rows that were found and not kept are found again by whoever goes on from it. A log that is away is a
quiet one, told of once and asked again after longer and longer pauses; meanwhile what was learned is published and saved as ever.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from prerank.config import ConfigError
from prerank.stream import Correction, LeaseError, Log, LogError, Position, Row, Rows

BACKOFF = 0.1, 5.0  # seconds between tries while the log is away, from the first to the longest
T = TypeVar("T")


def part_of(log: Log, partition: int | None, rank: int, world: int) -> Sequence[int]:
    """The partitions of one of `world` processes: the one that is named, or its share of all. Raises ConfigError for too few."""
    if partition is not None:
        return [partition]
    if world > log.partitions:
        raise ConfigError(f"online.rows: must have a partition for each of {world} processes; '{log.name}' has {log.partitions}")
    return range(rank, log.partitions, world)


class Intake:
    """See the module's first lines.

    group, owner   whose the partitions are: see stream/log.py
    positions      where to go on, by partition; others from their beginning
    size           of a full batch
    lockstep       partitions have turns by the number of the batch, whoever has rows; otherwise whichever has some

    patient   whether a log that is away is waited for; else it is an error
    found     rows of `partition` that wait to be learned
    learned   positions behind all that is kept, by partition
    """

    def __init__(self, log: Log, group: str, owner: str, partitions: Sequence[int], positions: Mapping[int, Position], size: int,
                 lockstep: bool = False, say: Callable[[str], None] = lambda line: None) -> None:  # fmt: skip
        """Raises LogError: there is no log, or another owner has a partition."""
        self.patient, self._say, self._pause, self._again = True, say, 0.0, 0.0
        self.log, self.group, self.size, self.lockstep = log, group, size, lockstep
        self.learned = {p: positions.get(p, Position()) for p in partitions}
        self._leases = [log.claim(group, p, owner) for p in partitions]
        self._readers = [Rows(log, p, position) for p, position in self.learned.items()]
        self._turn = 0
        self.found: list[Row | Correction] = []
        self._since = time.monotonic()
        self._counted, self._lag = -math.inf, 0

    @property
    def partition(self) -> int:
        """Whose rows were found."""
        return self._readers[self._turn].partition

    @property
    def full(self) -> bool:
        """Whether it is a whole batch."""
        return len(self.found) >= self.size

    def more(self, wait: float, number: int) -> None:
        """What comes within so many seconds; number: of batches that were learned."""
        if (left := self._again - time.monotonic()) > 0:
            time.sleep(min(left, wait))
        self._ask(lambda: self._more(wait, number), None)

    def _more(self, wait: float, number: int) -> None:
        if not self.found and self.lockstep:
            self._turn = number % len(self._readers)
        elif not self.found and len(self._readers) > 1:
            for _ in self._readers:
                self._read(0.0)
                if self.found:
                    break
                self._next()
        self._read(wait)

    def waited(self, seconds: float) -> bool:
        """Whether what was found has waited for so long; nothing waits for nobody."""
        over = time.monotonic() - self._since >= seconds
        if over and not self.found:
            self._since = time.monotonic()
        return over and bool(self.found)

    def keep(self) -> None:
        """What was found is learned."""
        self.learned[self.partition] = self._readers[self._turn].position
        self.found, self._since = [], time.monotonic()
        self._next()

    def broken(self) -> int:
        """Entries since the last time that are no rows."""
        found = sum(r.broken for r in self._readers)
        for reader in self._readers:
            reader.broken = 0
        return found

    def lag(self) -> int:
        """Entries that are not taken yet, as of a second ago where one full batch follows another or the log is away."""
        now = time.monotonic()
        if not self.full or now - self._counted >= 1:
            self._counted, self._lag = now, self._ask(lambda: sum(reader.lag for reader in self._readers), self._lag)
        return self._lag

    def commit(self) -> None:
        """Tell the log how far we are; what counts is the checkpoint."""
        for partition, position in self.learned.items():
            self._ask(lambda p=partition, at=position.offset: self.log.commit(self.group, p, at), None)  # type: ignore[misc]

    def renew(self) -> None:
        """Call it often. Raises LeaseError when another owner came in between."""
        for lease in self._leases:
            self._ask(lease.renew, None)

    def release(self) -> None:
        """Another may have the partitions."""
        for lease in self._leases:
            with suppress(LogError):  # then it runs out
                lease.release()

    def _ask(self, what: Callable[[], T], otherwise: T) -> T:
        """What the log says, or what can be said without it. Raises LeaseError, and LogError where nobody is patient."""
        if time.monotonic() < self._again:
            return otherwise
        try:
            found = what()
        except LeaseError:
            raise
        except LogError as error:
            if not self.patient:
                raise
            if not self._pause:
                self._say(f"{error}; it is tried again")
            self._pause = min(2 * self._pause or BACKOFF[0], BACKOFF[1])
            self._again = time.monotonic() + self._pause
            return otherwise
        if self._pause:
            self._say(f"log '{self.log.name}': is there again")
        self._pause = 0.0
        return found

    def _read(self, wait: float) -> None:
        reader = self._readers[self._turn]
        while not self.full:
            before = reader.position
            self.found += reader.take(self.size - len(self.found), wait)
            if reader.position == before:
                return
            wait = 0.0

    def _next(self) -> None:
        self._turn = (self._turn + 1) % len(self._readers)
