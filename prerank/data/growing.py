"""A vocabulary that takes new values in and lets unused ones go, in rows that are fixed: memory is bounded by construction.

    rows = vocabulary.assign(ids, ts)           while a stream is learned from: counts, admits, expires
    rows = vocabulary.rows(ids, "user_id")      the same lookup as `Vocabulary.rows`: changes nothing
    changes = vocabulary.changes()              whose weights must begin anew: `training.reset_rows`

Rules, all by event time and so the same in every replay of the same batches:

    admission   a value is 'unknown' until it was seen `admit_after` times (a batch counts as one moment); values of training come first
    expiry      a value that was not used for `expire_after` loses its row, at most a 32nd of that late
    full        the least recently used lose theirs, a 64th of all at a time; never one of the batch at hand
    re-use      a row that was given up is admitted again like any other, the longest free first

A time of the far future would let everything expire: whoever reads events refuses such times first (stream/waiting.py).
"""

from __future__ import annotations

import copy
import json
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prerank.config import Growth, milliseconds
from prerank.data.errors import DataError, writing
from prerank.data.keys import Keys
from prerank.data.sightings import Sightings
from prerank.data.values import Place, Values, as_type, row, series
from prerank.schema import FIRST, MISSING, UNKNOWN

NEVER = -(2**63)
SWEEPS = 32  # looks for what has expired, in the time that a value may stay unused
BLOCK = 64  # of a full table so small a part is given up at once
META = b"prerank.growth"


class Changes(NamedTuple):
    """Rows int32, ascending: those that have another value than when it was last asked, and those that have none any more."""

    admitted: NDArray[np.int32]
    released: NDArray[np.int32]


class GrowingVocabulary:
    """See the module's first lines.

    values   known from training, most frequent first: Int64 or String
    growth   rows of the tables, and how values come and go

    >>> vocabulary = GrowingVocabulary(pl.Series([70, 80]), Growth(capacity=10, admit_after=2, expire_after="10s"))
    >>> vocabulary.assign(pl.Series([80, 90]), 1_000).tolist(), vocabulary.assign(pl.Series([90]), 2_000).tolist()
    ([4, 2], [5])
    >>> vocabulary.rows(pl.Series([90, 91]), "item").tolist(), vocabulary.size
    ([5, 2], 10)
    """

    suffix = ".growing.parquet"

    def __init__(self, values: pl.Series, growth: Growth, name: str = "vocabulary") -> None:
        """Raises DataError for values that do not fit, in number or type."""
        places = growth.capacity - FIRST
        if len(values) > places:
            raise DataError(f"growth '{name}': capacity must be at least {len(values) + FIRST:,}, the values of train and three reserved "
                            f"rows; got {growth.capacity:,}")  # fmt: skip
        if values.dtype not in (pl.Int64, pl.String):
            raise DataError(f"growth '{name}': values must be integers or text; they are {values.dtype}")
        self.dtype, self.growth, self.size = values.dtype, growth, growth.capacity
        self.clock = NEVER  # latest event time
        self._expire = milliseconds(growth.expire_after)
        self._swept = self._counted_from = NEVER
        self._keys, self._last = Keys(places), np.full(places, NEVER)
        self._texts = np.full(places, None, object) if values.dtype == pl.String else None
        self._held = np.zeros(places, bool)
        self._free = np.arange(places, dtype=np.int32)  # in the order in which they are given away
        self._seen = Sightings(growth.candidates)
        self._admitted, self._released = np.zeros(places, bool), np.zeros(places, bool)
        self._give(self._hashes(values), self._take(len(values)), values, np.full(len(values), NEVER))
        self._admitted[:] = False

    def rows(self, values: Values, what: str, place: Place = row) -> NDArray[np.int32]:
        """values [n] of any fitting type -> int32 [n]. Raises DataError for values of another type."""
        given = as_type(series(values, what), self.dtype, what, place)
        found = np.full(len(given), MISSING, np.int32)
        there = given.is_not_null().to_numpy()
        known = given.drop_nulls()
        found[there] = _rows(self._verified(self._keys.find(self._hashes(known)), known))
        return found

    def assign(self, values: Values, ts: NDArray[np.int64] | int, what: str = "ids", place: Place = row) -> NDArray[np.int32]:
        """Count the values of a batch as used, let go what has expired, admit what was seen often enough.  # int32 [n]

        values   [n] of any fitting type
        ts       [n] event times in ms, or one for all
        Raises DataError for values of another type.
        """
        given = as_type(series(values, what), self.dtype, what, place)
        found = np.full(len(given), MISSING, np.int32)
        if len(given):
            times = np.broadcast_to(np.asarray(ts, np.int64), len(given))
            there = given.is_not_null().to_numpy()
            self._tick(int(times.max()))
            found[there] = _rows(self._assign(given.drop_nulls(), times[there]))
        return found

    def with_rows(self, values: pl.Series, rows: NDArray[np.int32], released: NDArray[np.int32]) -> GrowingVocabulary:
        """A copy for look-ups in which some rows have other values, and released ones none; this one stays as it is.

        values, rows   [n];  raises DataError for rows or values that cannot be
        """
        at, gone = rows.astype(np.int64) - FIRST, released.astype(np.int64) - FIRST
        given = as_type(values, self.dtype, "values of a vocabulary")
        every = np.concatenate([at, gone])
        if len(at) != len(given) or (len(every) and not 0 <= every.min() <= every.max() < len(self._held)):
            raise DataError(f"values of a vocabulary: must have one row each, of {self.size:,}")
        made = copy.copy(self)
        made._keys, made._held, made._last = copy.copy(self._keys), self._held.copy(), self._last.copy()
        made._keys.at, made._keys._slots = self._keys.at.copy(), self._keys._slots.copy()
        made._admitted, made._released = self._admitted.copy(), self._released.copy()
        made._texts = None if self._texts is None else self._texts.copy()
        made._release(np.unique(every[made._held[every]]))
        keys = made._hashes(given)
        if len(np.unique(keys)) < len(keys) or (made._keys.find(keys) >= 0).any():
            raise DataError("values of a vocabulary: one has a row already")
        made._give(keys, at, given, np.full(len(at), self.clock))
        return made

    def changes(self) -> Changes:
        """What has changed since this was last asked."""
        now = self._held & self._admitted
        gone = self._released & ~self._held
        self._admitted[:] = self._released[:] = False
        return Changes(*((np.flatnonzero(mask) + FIRST).astype(np.int32) for mask in (now, gone)))

    def at(self, rows: NDArray[np.integer[Any]]) -> pl.Series:
        """Values of rows [n]; null where a row has none."""
        positions = rows.astype(np.int64) - FIRST
        held = self._held[positions]
        return pl.Series([v if there else None for v, there in zip(self._at(positions).to_list(), held, strict=True)], dtype=self.dtype)

    @property
    def values(self) -> pl.Series:
        """Those that have a row, in the order of their rows."""
        return self._at(np.flatnonzero(self._held))

    @property
    def bytes(self) -> int:
        """Of memory: the same whatever comes, but for the letters of texts."""
        arrays = (self._last, self._held, self._admitted, self._released, np.zeros(0) if self._texts is None else self._texts)
        return self._keys.bytes + self._seen.bytes + sum(a.nbytes for a in arrays) + 4 * (self.size - FIRST)

    def _tick(self, now: int) -> None:
        """The clock goes on; what expired goes, and counts of long ago are forgotten."""
        if self.clock == NEVER:  # what training knew counts as used when the stream begins
            self._last[self._held] = self._swept = self._counted_from = now
        self.clock = max(self.clock, now)
        if self.clock - self._swept >= max(1, self._expire // SWEEPS):
            self._swept = self.clock
            self._release(np.flatnonzero(self._held & (self._last < self.clock - self._expire)))
        if self.clock - self._counted_from > self._expire:
            self._counted_from = self.clock
            self._seen.forget_older()

    def _assign(self, values: pl.Series, ts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions [n] of values without missing ones; -1: unknown."""
        keys = self._hashes(values)
        at = self._keys.find(keys)
        new = np.flatnonzero(at < 0)
        used = at if not len(new) else at[at >= 0]
        np.maximum.at(self._last, used, ts if not len(new) else ts[at >= 0])
        if len(new):
            at[new] = self._admit(keys[new], values.gather(new), ts[new], used)
        return self._verified(at, values)

    def _admit(self, keys: NDArray[np.int64], values: pl.Series, ts: NDArray[np.int64], used: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions [n] of keys that have none; -1 for those that were not seen often enough, or find no room."""
        distinct, first, inverse, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        latest = np.full(len(distinct), NEVER)
        np.maximum.at(latest, inverse, ts)
        at = np.full(len(distinct), -1)
        order = np.argsort(first)  # those that came first are admitted first
        for start in range(0, len(order), self.growth.candidates):
            part = order[start : start + self.growth.candidates]
            if self.growth.admit_after > 1:
                part = part[self._seen.add(distinct[part], counts[part]) >= self.growth.admit_after]
            taken = self._take(len(part), [used, at[at >= 0]])
            part = part[: len(taken)]
            if self.growth.admit_after > 1:
                self._seen.forget(distinct[part])
            self._give(distinct[part], taken, values.gather(first[part]), latest[part])
            at[part] = taken
        return at[inverse]

    def _take(self, n: int, spared: list[NDArray[np.int64]] | None = None) -> NDArray[np.int64]:
        """Positions for n values, or as many as there can be; those that are spared are not given up for it."""
        if n > len(self._free) and spared is not None:
            self._evict(max(n - len(self._free), (self.size - FIRST) // BLOCK), spared)
        taken, self._free = self._free[:n].astype(np.int64), self._free[n:]
        return taken

    def _evict(self, n: int, spared: list[NDArray[np.int64]]) -> None:
        """Release the n least recently used; of equal ones the lower rows."""
        may = self._held.copy()
        for positions in spared:
            may[positions] = False
        candidates = np.flatnonzero(may)
        if n < len(candidates):
            last = self._last[candidates]
            limit = np.partition(last, n - 1)[n - 1]
            older, equal = candidates[last < limit], candidates[last == limit]
            candidates = np.sort(np.concatenate([older, equal[: n - len(older)]]))
        self._release(candidates)

    def _release(self, positions: NDArray[np.int64]) -> None:
        if not len(positions):
            return
        self._keys.remove(positions)
        self._held[positions] = False
        self._released[positions] = True
        self._last[positions] = NEVER
        if self._texts is not None:
            self._texts[positions] = None
        self._free = np.concatenate([self._free, positions.astype(np.int32)])

    def _give(self, keys: NDArray[np.int64], positions: NDArray[np.int64], values: pl.Series, last: NDArray[np.int64]) -> None:
        self._keys.put(keys, positions)
        self._held[positions] = self._admitted[positions] = True
        self._last[positions] = last
        if self._texts is not None:
            self._texts[positions] = values.to_numpy()

    def _hashes(self, values: pl.Series) -> NDArray[np.int64]:
        """A 64-bit key of each value [n] without missing ones: the integer itself, or a text's hash."""
        if not len(values):
            return np.empty(0, np.int64)
        return values.to_numpy() if self._texts is None else values.hash().to_numpy().view(np.int64)

    def _verified(self, at: NDArray[np.int64], values: pl.Series) -> NDArray[np.int64]:
        """Positions, without those of texts that only share another's hash: they stay unknown."""
        if self._texts is None or not len(at):
            return at
        return np.where((self._texts[at] == values.to_numpy()) & (at >= 0), at, -1)

    def _at(self, positions: NDArray[np.int64]) -> pl.Series:
        if self._texts is None:
            return pl.Series("value", self._keys.at[positions])
        return pl.Series("value", self._texts[positions].tolist(), dtype=pl.String)

    def save(self, path: Path) -> None:
        """A Parquet file of values, rows and last uses, which names an .npz beside it with what else there is; whole or not at all."""
        held = np.flatnonzero(self._held)
        state: dict[str, Any] = {"free": self._free, **self._seen.arrays(),
                 "admitted": np.flatnonzero(self._admitted), "released": np.flatnonzero(self._released)}  # fmt: skip
        beside = path.with_name(f"{path.name}.{os.urandom(4).hex()}.npz")
        told = {"growth": self.growth.model_dump(), "clock": self.clock, "swept": self._swept, "counted_from": self._counted_from,
                "beside": beside.name}  # fmt: skip
        table = pa.table({"value": self._at(held).to_arrow(), "row": (held + FIRST).astype(np.int32), "last": self._last[held]})
        temporary = path.with_name(f".{path.name}.part")
        with writing(path):
            with beside.open("wb") as file:
                np.savez(file, **state)
                _durable(file)
            with temporary.open("wb") as file:
                pq.write_table(table.replace_schema_metadata({META: json.dumps(told)}), file)
                _durable(file)
            os.replace(temporary, path)
        for older in path.parent.glob(f"{path.name}.*.npz"):
            if older != beside:
                older.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> GrowingVocabulary:
        """What `save` wrote. Raises DataError when it is not whole."""
        try:
            table = pq.read_table(path)
            told: dict[str, Any] = json.loads((table.schema.metadata or {})[META])
            with path.with_name(told["beside"]).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                state = {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError, KeyError, pa.ArrowException, zipfile.BadZipFile) as error:
            raise DataError(f"vocabulary '{path}': cannot be read: {str(error).splitlines()[0]}") from None
        values = pl.Series(table["value"])
        made = cls(values.clear(), Growth.model_validate(told["growth"]))
        positions = table["row"].to_numpy().astype(np.int64) - FIRST
        made._give(made._hashes(values), positions, values, table["last"].to_numpy())
        made._free, made._admitted[:] = state["free"], False
        made._admitted[state["admitted"]] = made._released[state["released"]] = True
        made._seen.load(state)
        made.clock, made._swept, made._counted_from = told["clock"], told["swept"], told["counted_from"]
        return made

    def __repr__(self) -> str:
        return f"<GrowingVocabulary {int(self._held.sum()):,} values of {self.dtype} in {self.size:,} rows>"


def _rows(positions: NDArray[np.int64]) -> NDArray[np.int32]:
    return np.where(positions >= 0, positions + FIRST, UNKNOWN).astype(np.int32)


def _durable(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
