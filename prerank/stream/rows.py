"""Training rows as a trainer reads them: one partition, each row once.

    rows = Rows(log, partition=0, position=saved)
    batch = rows.take(512, wait=0.5)          # [Row | Correction]
    save(model, rows.position)                # in one file or transaction with what was learned

Whatever was appended twice (a joiner that crashed, a network that lost an answer) has a `source` that is not new, and is skipped.
"""

from __future__ import annotations

from typing import NamedTuple

from prerank.stream.log import Log
from prerank.stream.row import Correction, Row, Source, read_row


class Position(NamedTuple):
    """Where a reader goes on: the next offset, and the last row's source."""

    offset: int = 0
    source: Source = Source(-1, 0)


class Rows:
    """See the module's first lines. repeated, broken: entries that were skipped, because they came again, or are no rows."""

    def __init__(self, log: Log, partition: int = 0, position: Position = Position()) -> None:  # noqa: B008
        self.log, self.partition, self.position = log, partition, position
        self.repeated = self.broken = 0

    def take(self, limit: int = 1000, wait: float = 0.0) -> list[Row | Correction]:
        """At most so many, from `position` on, which moves behind them. Raises LogError."""
        found: list[Row | Correction] = []
        offset, source = self.position
        for entry in self.log.read(self.partition, offset, limit, wait):
            offset = entry.offset + 1
            try:
                row = read_row(entry.data)
            except ValueError:
                self.broken += 1
                continue
            if row.source <= source:
                self.repeated += 1
                continue
            source = row.source
            found.append(row)
        self.position = Position(offset, source)
        return found

    @property
    def lag(self) -> int:
        """Entries that are not taken yet. Raises LogError."""
        return self.log.end(self.partition) - self.position.offset
