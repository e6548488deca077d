"""What a trainer of a stream tells while it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from prerank.stream import Source


@dataclass
class Told:
    """See the module's first line.

    rows, batches     learned from since the beginning;  skipped   rows that could not be read;  corrections   left alone (ours)
    late              left alone: their impressions lie further back than memories can be read (`online.recall`)
    lag               entries of the log that wait
    rate              rows a second since the last time
    delay             seconds from the event that made the last row ready until it was learned from
    published         number of the last generation, sequence   of the last delta to it
    update_delay      seconds from such an event until what knows it was published
    updates           of each state since the last time: Unix time when it was published, generation, sequence, that delay, and the
                      source of the last row that it knows
    metrics           of the last `online.window` rows;  alarms   times that the loss rose
    """

    rows: int = 0
    batches: int = 0
    skipped: int = 0
    corrections: int = 0
    late: int = 0
    lag: int = 0
    rate: float = 0.0
    delay: float = math.nan
    published: int = 0
    sequence: int = 0
    update_delay: float = math.nan
    updates: list[tuple[float, int, int, float, Source]] = field(default_factory=list)
    alarms: int = 0
    metrics: dict[str, dict[str, float]] | None = None
