"""Raw ids -> rows: one hash table in C for integers (10 us a thousand; a dict takes 500), a dict for strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prerank.index.extension import maxsim


class IdError(ValueError):
    """Ids that are not of the kind this catalogue has, or that repeat."""


class Ids:
    """The rows of a catalogue by their ids; integers (int64) or strings.

    Integers come as a list or as an int64 array; `rows` gives int64 [C], -1 for ids the catalogue does not have.

    >>> Ids(np.array([30, 10, 20])).rows([10, 99]).tolist()
    [1, -1]
    >>> Ids(["a", "b"]).rows(["b"]).tolist()
    [1]
    """

    def __init__(self, ids: np.ndarray | Sequence[str]) -> None:
        self.ids = ids
        self.integer = isinstance(ids, np.ndarray) and ids.dtype.kind in "iu"
        if self.integer:
            self.ids = ids = np.ascontiguousarray(ids, np.int64)
            self._table, repeated = _table(ids)
        else:
            self._dict = {value: row for row, value in enumerate(ids)}
            repeated = -1 if len(self._dict) == len(ids) else _first_repeated(ids)
        if repeated >= 0:
            raise IdError(f"ids must be unique, {ids[repeated]} comes again at row {repeated}")

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"<Ids {len(self)} {'integers' if self.integer else 'strings'}>"

    def rows(self, ids: Sequence[int | str] | np.ndarray) -> np.ndarray:
        """ids [C] -> rows int64 [C]. Raises IdError naming the first id of the wrong kind."""
        if not self.integer:
            return self._text_rows(ids)
        if isinstance(ids, np.ndarray):
            if ids.dtype != np.int64:
                raise IdError(f"ids must be int64, got {ids.dtype}")
            ids = np.ascontiguousarray(ids)
        rows = np.empty(len(ids), np.int64)
        try:
            _lookup(self._table, ids if isinstance(ids, np.ndarray) else list(ids), rows)
        except OverflowError as error:
            raise IdError(f"id {ids[int(str(error))]} at position {error}: must fit in 64 bits") from None
        except TypeError as error:
            raise IdError(f"id {ids[int(str(error))]!r} at position {error}: must be an integer") from None
        return rows

    def row(self, value: int | str) -> int:
        """One id -> its row, or -1."""
        return int(self.rows([value])[0])

    def _text_rows(self, ids: Sequence[int | str] | np.ndarray) -> np.ndarray:
        if isinstance(ids, np.ndarray):
            raise IdError("ids must be strings, got a binary array of integers")
        get = self._dict.get
        rows = np.fromiter((get(i, -1) for i in ids), np.int64, len(ids))
        for position in np.flatnonzero(rows < 0).tolist():
            if not isinstance(ids[position], str):
                raise IdError(f"id {ids[position]!r} at position {position}: must be a string")
        return rows


def _first_repeated(ids: np.ndarray | Sequence[str]) -> int:
    seen: set[object] = set()
    for row, value in enumerate(ids):
        if value in seen:
            return row
        seen.add(value)
    return -1


def _table(ids: np.ndarray) -> tuple[np.ndarray | dict[int, int], int]:
    """The hash table and the first repeated row (-1: none). At most two thirds of the slots are taken."""
    if maxsim is None:
        table = {value: row for row, value in enumerate(ids.tolist())}
        return table, -1 if len(table) == len(ids) else _first_repeated(ids.tolist())
    slots = np.empty((1 << max(1, int(len(ids) * 1.5)).bit_length(), 2), np.int64)
    return slots, maxsim.build(ids, slots)


def _lookup(table: np.ndarray | dict[int, int], ids: list[Any] | np.ndarray, rows: np.ndarray) -> None:
    if maxsim is not None:
        maxsim.lookup(table, ids, rows)
        return
    assert isinstance(table, dict)
    for position, value in enumerate(ids if isinstance(ids, list) else ids.tolist()):
        if not isinstance(value, int):
            raise TypeError(str(position))
        if not -(2**63) <= value < 2**63:
            raise OverflowError(str(position))
        rows[position] = table.get(value, -1)
