"""The log as preparation sees it: kept rows only, in batches, each with its number, its time and the derived columns.

Rows where `drop` holds and exact duplicates are gone; every walk gives the same rows in the same order. After the log's own rows
come those of the table of candidates, where there is one; columns that it does not have are missing there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prerank.config import Data
from prerank.data.errors import DataError
from prerank.data.labels import Condition
from prerank.data.table import Part, Table
from prerank.data.timestamps import Timestamps


@dataclass(frozen=True, slots=True)
class Events:
    """Kept rows of one batch.

    frame     [n] the columns asked for
    numbers   int64 [n] row numbers in the log as it is on disk, from 0
    first     position of the first row among all kept rows
    made      rows of the table of candidates: nothing of them was logged
    """

    frame: pl.DataFrame
    numbers: NDArray[np.int64]
    first: int
    part: Part
    _local: NDArray[np.int64]
    made: bool = False

    def place(self, position: int) -> str:
        """Where the user finds a row."""
        return self.part.place(int(self._local[position]))


class Log:
    """Walks over the kept rows of the log's table."""

    def __init__(self, table: Table, data: Data, candidates: Table | None = None) -> None:
        """Raises DataError when the drop rule cannot be read, names a missing column, or when duplicates cannot be found."""
        self.table, self.candidates = table, candidates
        told = [data.user_id, data.item_id, data.request, data.time, data.split.column, data.bid, "stage"]
        told += [data.stage.column if data.stage else None, *(data.teacher.columns() if data.teacher else ())]
        self._told = {c for c in told if c and candidates is not None and c in candidates.columns}
        self._drop = Condition(data.drop, "data.drop") if data.drop else None
        if self._drop:
            table.require(dict.fromkeys(self._drop.columns, "data.drop"))
        self.time = data.time
        self.clock = Timestamps(data.time or "", data.split.timezone)
        self._kept = self._first_of_equals() if data.deduplicate else None

    def walk(self, columns: Mapping[str, pl.DataType | None]) -> Iterator[Events]:
        """Batches of the kept rows; batches without any are left out.

        columns   {name: type to read it as; None: as stored}
        """
        wanted = dict(columns)
        for column in self._drop.columns if self._drop else ():
            wanted[column] = self.table.typed(column)
        number, first = 0, 0
        for part in self.table.batches(wanted):
            n = len(part.frame)
            keep = np.ones(n, bool) if self._kept is None else self._kept[number : number + n]
            if self._drop:
                keep = keep & ~self._drop.matches(part.frame).fill_null(False).to_numpy()
            local = np.flatnonzero(keep)
            frame = part.frame if len(local) == n else part.frame.filter(pl.Series(keep))
            if len(local):
                yield Events(frame.select(list(columns)), local + number, first, part, local)
            first += len(local)
            number += n
        yield from self._made(columns, number, first)

    def _made(self, columns: Mapping[str, pl.DataType | None], number: int, first: int) -> Iterator[Events]:
        """The rows of the table of candidates: ids, stage, request, time, split, bid and teacher's scores, as far as it has them."""
        if self.candidates is None:
            return
        wanted = {c: self.candidates.typed(c) if c == self.time else None for c in (*columns, "stage") if c in self._told}
        for part in self.candidates.batches(wanted):
            n = len(part.frame)
            missing = [pl.Series(c, [None] * n, dtype=pl.Null) for c in columns if c not in wanted]
            rows = np.arange(n)
            yield Events(part.frame.with_columns(missing), rows + number, first, part, rows, made=True)
            first += n
            number += n

    def times(self, events: Events) -> NDArray[np.int64] | None:
        """int64 [n] ms, 0 for candidates without one; None when the log has no time."""
        if not self.time:
            return None
        if events.made and events.frame[self.time].dtype == pl.Null:
            return np.zeros(len(events.frame), np.int64)
        return self.clock.read(events.frame[self.time], events.place)

    def _first_of_equals(self) -> NDArray[np.bool_]:
        """True for the first of each group of equal rows (over all columns), by 64-bit hashes: about 30 bytes a row of memory.

        Among 10^8 rows two different ones agree with probability 3e-4, and then one of them is lost.
        """
        columns: dict[str, pl.DataType | None] = dict.fromkeys(self.table.columns, None)
        try:
            hashes = [part.frame.hash_rows(seed=0).to_numpy() for part in self.table.batches(columns)]
        except pl.exceptions.PolarsError as error:
            raise DataError(f"data.deduplicate: rows cannot be compared: {str(error).splitlines()[0]}") from None
        flat = np.concatenate([*hashes, np.empty(0, np.uint64)])
        kept = np.zeros(len(flat), bool)
        kept[np.unique(flat, return_index=True)[1]] = True
        return kept
