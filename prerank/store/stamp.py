"""Who blends what, so that it is blended once: a row is known by its writer's name and its offset in the log.

A trainer that was killed goes on from its checkpoint and meets rows again that it has blended already. A store remembers how far each
writer has come, in the transaction that blends, and leaves those rows out.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from torch import Tensor


class Stamp(NamedTuple):
    """Behind the vectors of a call of `blend`.

    writer    who writes: one for each trainer and partition; only one process writes under a name at a time
    offsets   [n] int64, the log's offset of the row behind each vector; from call to call they rise
    known     milliseconds of event time at which the latest label behind the call was known; it never falls for a writer, who takes
              the running maximum
    """

    writer: str
    offsets: Tensor
    known: int


class Done(NamedTuple):
    """How far a writer has come in a store; -1: it has not begun.

    upto    rows up to this offset are blended, all of them
    begun   rows behind it and up to here may be blended in part (`upto` where a call is whole or nothing); a writer that
            goes on and ends a batch here gets the bits that it would have got
    """

    upto: int
    begun: int


class Marker(NamedTuple):
    """What a store writes down for a writer.

    upto    rows up to this offset are blended
    parts   (end, id): of the rows behind the part before and up to `end`, those of ids up to `id` are blended

    >>> marker = Marker().moved(9, reached=50)          # a call up to row 9 was cut short behind id 50
    >>> marker.done, marker.moved(9)
    (Done(upto=-1, begun=9), Marker(upto=9, parts=()))
    """

    upto: int = -1
    parts: tuple[tuple[int, int], ...] = ()

    @property
    def done(self) -> Done:
        """For the writer."""
        return Done(self.upto, self.parts[-1][0] if self.parts else self.upto)

    def fresh(self, offsets: Tensor, ids: Tensor) -> Tensor:
        """[n] rows that are not blended yet."""
        fresh, start = offsets > self.upto, self.upto
        for end, reached in self.parts:
            fresh &= ~((offsets > start) & (offsets <= end) & (ids <= reached))
            start = end
        return fresh

    def moved(self, end: int, reached: int | None = None) -> Marker:
        """Behind a call that went up to row `end`: all of it, or of ids up to `reached`."""
        if reached is None:
            return Marker(max(self.upto, end), tuple(part for part in self.parts if part[0] > end))
        parts, start = [], self.upto
        for last, before in self.parts:
            if start < end < last:
                parts.append((end, max(before, reached)))
            parts.append((last, max(before, reached) if last <= end else before))
            start = last
        return Marker(self.upto, (*parts, (end, reached)) if end > start else tuple(parts))

    def pack(self) -> bytes:
        """As it is stored."""
        return struct.pack(f"<{1 + 2 * len(self.parts)}q", self.upto, *(n for part in self.parts for n in part))

    @classmethod
    def unpack(cls, data: bytes | None) -> Marker:
        """The inverse; None: the writer has not begun."""
        if data is None:
            return cls()
        upto, *rest = struct.unpack(f"<{len(data) // 8}q", data)
        return cls(upto, tuple(zip(rest[::2], rest[1::2], strict=True)))
