"""Large official text files -> typed frames, part by part: a file of 10^8 rows never lies in memory.

As strict as `files.py`: a line with another number of columns, or a value that is not what the documentation says, is named with its line.
The official files read here quote nothing, so a line is a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.csv as pc

from prerank.data.errors import DataError
from prerank.datasets.files import cast

BLOCK = 4 << 20  # bytes parsed at once
COMPACT = 1 << 20  # rows that `FirstSeen` lets wait


def stream_csv(
    path: Path,
    columns: Mapping[str, Any],
    *,
    separator: str = ",",
    names: Sequence[str] | None = None,
    nulls: Sequence[str] = ("",),
    required: Sequence[str] = (),
    allowed: Mapping[str, Sequence[Any]] | None = None,
) -> Iterator[pl.DataFrame]:
    """Frames of a text file's `columns`, in its order; blank lines are passed over.

    columns    {name: type} of what is wanted
    names      all columns in order when the file has no header; else they are read from it, without blanks around them and
               without the `table.` that exports put before a name
    nulls      texts that mean nothing
    required   columns that may not be empty
    allowed    {column: the only values it may have}

    Raises DataError naming file, line (blank ones are not counted) and column.
    """
    number = 1 if names else 2
    raw = list(names) if names else _header(path, separator)
    clean = [name.strip().rpartition(".")[2] for name in raw]
    missing = [c for c in columns if c not in clean]
    if missing:
        raise DataError(f"file '{path}': must have the official columns; missing: {', '.join(missing)}; got {', '.join(clean)[:200]}")
    for batch in _batches(path, clean, separator, nulls, list(columns), header=not names):
        frame = pl.DataFrame(pa.Table.from_batches([batch]))
        typed = [cast(path, frame[name], dtype, number, required=name in required) for name, dtype in columns.items()]
        for values in typed:
            _check_values(path, values, (allowed or {}).get(values.name), number)
        yield pl.DataFrame(typed)
        number += batch.num_rows
    if number == (1 if names else 2):
        raise DataError(f"file '{path}': has no rows")


class FirstSeen:
    """The first row of each key among rows that come in parts; memory holds the distinct keys, and little more."""

    def __init__(self, key: str) -> None:
        self.key = key
        self._known: list[pl.DataFrame] = []
        self._size = self._waiting = 0

    def update(self, rows: pl.DataFrame) -> None:
        """Further rows, all with the same columns."""
        self._known.append(rows.unique(self.key, keep="first", maintain_order=True))
        self._waiting += self._known[-1].height
        if self._waiting > max(COMPACT, self._size):  # amortised: every row is sorted through a few times at most
            self.get()

    def get(self) -> pl.DataFrame:
        """The first rows, in order of appearance."""
        self._known = [pl.concat(self._known).unique(self.key, keep="first", maintain_order=True)]
        self._size, self._waiting = self._known[0].height, 0
        return self._known[0]


def _batches(
    path: Path, names: list[str], separator: str, nulls: Sequence[str], wanted: list[str], *, header: bool
) -> Iterator[pa.RecordBatch]:
    """Batches of the wanted columns as text."""
    wrong: list[Any] = []

    def refuse(row: Any) -> str:
        wrong.append(row)
        return "error"

    read = pc.ReadOptions(column_names=names, skip_rows=int(header), block_size=BLOCK, use_threads=False)
    parse = pc.ParseOptions(delimiter=separator, quote_char=False, invalid_row_handler=refuse)
    types = dict.fromkeys(names, pa.string())
    convert = pc.ConvertOptions(column_types=types, include_columns=wanted, null_values=list(nulls), strings_can_be_null=True)
    try:
        reader = pc.open_csv(path, read_options=read, parse_options=parse, convert_options=convert)
        while True:
            yield reader.read_next_batch()
    except StopIteration:
        return
    except (pa.ArrowException, OSError) as error:
        if wrong:
            row = wrong[0]
            said = f" line {row.number}: has {row.actual_columns} of {row.expected_columns} columns"
            raise DataError(f"file '{path}'{said}: {row.text[:80]!r}") from None
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise DataError(f"file '{path}': cannot be read: {reason}") from None


def _header(path: Path, separator: str) -> list[str]:
    try:
        with path.open("rb") as file:
            line = file.readline(1 << 16)
    except OSError as error:
        raise DataError(f"file '{path}': cannot be read: {error.strerror}") from None
    if not line.strip():
        raise DataError(f"file '{path}': is empty")
    return line.decode("utf-8", "replace").removeprefix("\ufeff").rstrip("\r\n").split(separator)


def _check_values(path: Path, values: pl.Series, allowed: Sequence[Any] | None, first_line: int) -> None:
    if allowed is None:
        return
    bad = (~values.is_in(list(allowed)) & values.is_not_null()).arg_true()
    if len(bad):
        at, valid = int(bad[0]), ", ".join(map(str, allowed))
        raise DataError(f"file '{path}' line {at + first_line}: {values.name} must be one of {valid}; got {values[at]!r}")
