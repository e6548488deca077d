"""Memories (CTS, CMS) as a stream uses them: read as they were when a row was shown, and each row blended into them once.

    moments = Moments(caches, "two-tower", recall)
    with moments.at(rows, partition=0):
        ...                                # predict, learn, observe

A label is known only when its window has closed, so that what is blended of a row is known `Row.delay` after its impression; a later row
is learned with what was known at its own impression. After a crash rows come again whose blends lie in a store outside: they are left out
there, and the reads are the same as before, as they ask for a time that is over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from prerank.config import Recall, milliseconds
from prerank.store import EmaCache, Moment
from prerank.stream import Row, Source


def place(source: Source) -> int:
    """A row's place in its stream as one number: it ascends, and is the same whenever the row is read. An event makes < 2^24 rows ready."""
    return source.offset << 24 | source.n


class Moments:
    """See the module's first lines.

    role     with the partition it is the name under which the stores know who blends
    known    ms event time at which the latest label was known that was learned, by anybody who learns together with us
    """

    def __init__(self, caches: Sequence[EmaCache], role: str, recall: Recall | None) -> None:
        self._caches, self._role = caches, role
        self._keep = None if recall is None else milliseconds(recall.keep)
        self.known = 0
        self._saved: int | None = None

    @property
    def far(self) -> bool:
        """Whether what a crash would repeat nears what memories can be read back: a backlog goes through hours in seconds."""
        return self._keep is not None and bool(self._caches) and self._saved is not None and self.known - self._saved > self._keep / 2

    def saved(self) -> None:
        """A checkpoint was written."""
        self._saved = self.known

    def writer(self, partition: int) -> str:
        """Under which name the stores know who blends a partition's rows."""
        return f"{self._role} {partition}"

    def late(self, row: Row) -> bool:
        """Whether what was known when it was shown is not kept any more."""
        return self._keep is not None and row.delay > self._keep

    def learns(self, rows: Sequence[Row]) -> int:
        """What is known when these are learned: the latest of `known` and of theirs."""
        return max((self.known, *(r.impression.ts + r.delay for r in rows)))

    @contextmanager
    def at(self, rows: Sequence[Row], partition: int) -> Iterator[None]:
        """In it, memories are as they were when the first of the rows was shown, and what is blended is known at `known`, or later."""
        self.known = self.learns(rows)
        self._saved = self.known if self._saved is None else self._saved
        asof = None if self._keep is None else min(r.impression.ts for r in rows)
        moment = Moment(asof, self.writer(partition), torch.tensor([place(r.source) for r in rows]), self.known)
        for cache in self._caches:
            cache.moment = moment
        try:
            yield
        finally:
            for cache in self._caches:
                cache.moment = None
