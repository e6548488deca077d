"""A table of the user's: a CSV or Parquet file, a glob of them, or a folder of parts, read in batches.

Never read whole: `batches` yields frames of about `BATCH` rows, so that a log far larger than memory
can be prepared. What is wrong with a file (missing, empty, half-written, a ragged line, a value of
the wrong type at row n) becomes one line that names the file.

CSV: the first line is the header, text is UTF-8, an empty cell, `NULL`, `null`, `NaN` or `nan` is
missing. The type of a column is told from its first `SNIFF` rows (integers, numbers, true/false, else
text; integers with leading zeros are text), but its cells are handed on as text: whoever reads the
column knows what it must be and can name the feature in the error. Parquet: the files' own types.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prerank.config import nearest
from prerank.data.errors import DataError
from prerank.data.values import as_type

BATCH = 1 << 17  # rows of a frame: large enough for vectorised work, small enough for any memory
BATCH_BYTES = 8 << 20  # of a frame in Parquet: wide rows (given vectors) come in shorter frames, as encoding takes a few times their size
SNIFF = 100_000
_BLOCK = 8 << 20  # bytes of a CSV block
_NULLS = ["", "NULL", "null", "NaN", "nan"]


@dataclass(frozen=True, slots=True)
class Part:
    """A frame and where it stands in its file (`first` counts rows from 0, a header is none).

    rows   of a frame whose lists were spread: which row of the file each of its rows was in
    """

    frame: pl.DataFrame
    file: Path
    first: int
    rows: NDArray[np.int64] | None = None

    def place(self, position: int) -> str:
        """Where the user finds a row of the frame."""
        at = position if self.rows is None else int(self.rows[position])
        return f"row {self.first + at + 1} of {self.file.name}"


class Table:
    """Files of one table with their columns.

    files     in the order in which they are read
    columns   {name: type} of the first file; CSV types are told from its first rows
    """

    def __init__(self, path: str | Path, role: str, explode: tuple[str, ...] = ()) -> None:
        """Raises DataError when it cannot be read.

        role      what the table is to the user: log, users, items
        explode   list columns of equal length, of which each entry becomes a row; the other columns repeat
        """
        self.role = role
        self.explode = explode
        self.path = str(path)
        self.files = _files(self.path, role)
        self._parquet = self.files[0].suffix.lower() in (".parquet", ".pq")
        self.rows = 0.0  # Parquet: exact; CSV: estimated from its size, for progress only
        self.columns = self._parquet_types() if self._parquet else self._csv_types()
        for column in explode:
            self.columns[column] = self._entry_type(column)

    def stamp(self) -> list[tuple[str, int, int]]:
        """(name, size in bytes, change in ns) of every file: what a cache of this table depends on."""
        stats = [(f, f.stat()) for f in self.files]
        return [(f.name, s.st_size, s.st_mtime_ns) for f, s in stats]

    def problem(self, column: str, what: str) -> str | None:
        """A sentence when the column does not exist."""
        if column in self.columns:
            return None
        return f"{what}: {self.role} '{self.path}' has no column '{column}'{nearest(column, self.columns)}"

    def require(self, columns: Mapping[str, str]) -> None:
        """{column: what reads it}. Raises DataError naming every column that does not exist."""
        problems = [p for column, what in columns.items() if (p := self.problem(column, what))]
        if problems:
            raise DataError("\n".join(problems))

    def typed(self, column: str) -> pl.DataType | None:
        """The type to read a column as where its own type matters (conditions, times): integers of a CSV may turn out as numbers later."""
        told = self.columns[column]
        return None if self._parquet else pl.Float64() if told == pl.Int64 else told

    def batches(self, columns: Mapping[str, pl.DataType | None]) -> Iterator[Part]:
        """Frames of the named columns, in order.

        columns   {name: type to read it as; None: as stored, which is text for CSV (but for true/false)}
        Raises DataError when a file cannot be read or a value has another type.
        """
        for file in self.files:
            first = 0
            try:
                for raw in self._read(file, list(dict.fromkeys([*columns, *self.explode[:1]]))):
                    part = self._spread(Part(raw, file, first)) if self.explode else Part(raw, file, first)
                    yield Part(self._typed(part, columns), file, first, part.rows)
                    first += len(raw)
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{self.role} '{file}': {_reason(error)}") from None

    def read(self, columns: Mapping[str, pl.DataType | None]) -> pl.DataFrame:
        """The named columns of the whole table in memory. Raises DataError as `batches` does, or when there are no rows."""
        frames = [p.frame for p in self.batches(columns)]
        if not sum(len(f) for f in frames):
            raise DataError(f"{self.role} '{self.path}': has no rows")
        return pl.concat(frames, how="vertical_relaxed", rechunk=True)

    def _spread(self, part: Part) -> Part:
        """One row an entry of the list columns; empty lists give none. Raises DataError when a row's lists differ in length."""
        lists = {c: _as_lists(part.frame[c]) for c in self.explode if c in part.frame.columns}
        lengths = {c: values.list.len().fill_null(0).to_numpy() for c, values in lists.items()}
        own = lengths[self.explode[0]]
        for column, found in lengths.items():
            wrong = np.flatnonzero(found != own)
            if len(wrong):
                at = int(wrong[0])
                both = f"'{self.explode[0]}' has {own[at]}, '{column}' {found[at]}"
                raise DataError(f"data.explode: lists of a row must be equally long; in {part.place(at)} {both}")
        rows = np.repeat(np.arange(len(own)), own)
        some = pl.Series(own > 0)
        entries = {c: lists[c].filter(some).list.explode() if c in lists else part.frame[c].gather(rows) for c in part.frame.columns}
        return Part(pl.DataFrame(entries), part.file, part.first, rows)

    def _entry_type(self, column: str) -> pl.DataType:
        """Type of a list column's entries. Raises DataError when it holds no lists, or does not exist."""
        problem = self.problem(column, "data.explode")
        if problem:
            raise DataError(problem)
        dtype = self.columns[column]
        if not isinstance(dtype, pl.List | pl.Array):
            raise DataError(f"data.explode: column '{column}' must hold lists (as a Parquet file can), it is {dtype}")
        return dtype.inner() if isinstance(dtype.inner, type) else dtype.inner

    def _typed(self, part: Part, columns: Mapping[str, pl.DataType | None]) -> pl.DataFrame:
        """The frame with the types asked for; a CSV's text becomes the type told from its first rows."""
        out = {}
        for name, wanted in columns.items():
            values = part.frame[name]
            out[name] = values if wanted is None else as_type(values, wanted, f"{self.role}, column '{name}'", part.place)
        return pl.DataFrame(out)

    def _read(self, file: Path, columns: list[str]) -> Iterator[pl.DataFrame]:
        if not self._parquet:
            yield from (_frame(b) for b in _open_csv(file, columns))
            return
        with pq.ParquetFile(file, buffer_size=1 << 20) as parquet:  # else a whole column of a row group is held
            missing = [c for c in columns if c not in parquet.schema_arrow.names]
            if missing:
                raise DataError(f"{self.role} '{file}': this part has no column '{missing[0]}', the first part has")
            for batch in parquet.iter_batches(_batch_rows(parquet.metadata, columns), columns=columns, use_threads=False):
                yield _frame(batch).select(columns)

    def _parquet_types(self) -> dict[str, pl.DataType]:
        schema = None
        for file in self.files:
            try:
                with pq.ParquetFile(file) as parquet:
                    schema = schema or parquet.schema_arrow
                    self.rows += parquet.metadata.num_rows
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{self.role} '{file}': {_reason(error)}") from None
        assert schema is not None
        if not self.rows:
            raise DataError(f"{self.role} '{self.path}': has no rows")
        self._check_names(schema.names)
        return dict(pl.DataFrame(schema.empty_table()).schema)

    def _check_names(self, names: list[str]) -> None:
        twice = [n for n in names if names.count(n) > 1]
        if twice:
            raise DataError(f"{self.role} '{self.files[0]}': column '{twice[0]}' occurs {names.count(twice[0])} times")

    def _csv_types(self) -> dict[str, pl.DataType]:
        file = self.files[0]
        try:
            reader = _open_csv(file, None)
            self._check_names(reader.schema.names)
            head, rows = [], 0
            for batch in reader:
                head.append(_frame(batch))
                rows += batch.num_rows
                if rows >= SNIFF:
                    break
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.role} '{file}': {_reason(error)}") from None
        if not rows:
            raise DataError(f"{self.role} '{file}': has a header but no rows")
        frame = pl.concat(head)
        size = sum(int(frame[c].str.len_bytes().sum()) + rows for c in frame.columns)  # a comma or line end after each cell
        self.rows = rows / size * sum(f.stat().st_size for f in self.files)
        frame = frame.head(SNIFF)
        return {name: _told(frame[name]) for name in frame.columns}

    def __repr__(self) -> str:
        return f"<Table {self.role}, {len(self.files)} file{'s' if len(self.files) > 1 else ''}, {len(self.columns)} columns>"


def _as_lists(values: pl.Series) -> pl.Series:
    return values.arr.to_list() if isinstance(values.dtype, pl.Array) else values


def _files(path: str, role: str) -> list[Path]:
    """Files behind a path, a glob or a folder, sorted by name. Raises DataError when there is none or one is empty."""
    if any(c in path for c in "*?["):
        found = [Path(p) for p in sorted(glob.glob(path, recursive=True)) if Path(p).is_file()]
    elif Path(path).is_dir():
        inside = [p for p in sorted(Path(path).rglob("*")) if p.is_file()]
        parts = [p for p in inside if not any(name[0] in "._" for name in p.relative_to(path).parts)]  # _temporary, ._x: not parts
        found = _of_kind(parts, (".parquet", ".pq")) or _of_kind(parts, (".csv", ".tsv", ".gz"))
    else:
        found = [Path(path)] if Path(path).is_file() else []
    if not found:
        raise DataError(f"{role} '{path}': no such file, or no CSV or Parquet file in it")
    for file in found:
        if file.stat().st_size == 0:
            raise DataError(f"{role} '{file}': the file is empty")
    kinds = {f.suffix.lower() in (".parquet", ".pq") for f in found}
    if len(kinds) > 1:
        raise DataError(f"{role} '{path}': mixes Parquet and other files")
    return found


def _of_kind(files: Iterable[Path], suffixes: tuple[str, ...]) -> list[Path]:
    return [f for f in files if f.suffix.lower() in suffixes]


def _batch_rows(metadata: pq.FileMetaData, columns: list[str]) -> int:
    """Rows of these columns that fit into BATCH_BYTES, at most BATCH."""
    size = 0
    for group in (metadata.row_group(i) for i in range(metadata.num_row_groups)):
        chunks = (group.column(i) for i in range(group.num_columns))
        size += sum(c.total_uncompressed_size for c in chunks if c.path_in_schema in columns or c.path_in_schema.split(".")[0] in columns)
    return max(1, min(BATCH, BATCH_BYTES * metadata.num_rows // max(size, 1)))


def _open_csv(file: Path, columns: list[str] | None) -> pc.CSVStreamingReader:
    """A reader that gives every column as text: types are ours to tell, so that errors can name the row."""
    tab = ".tsv" in file.suffixes
    parse = pc.ParseOptions(delimiter="\t" if tab else ",", newlines_in_values=True)
    read = pc.ReadOptions(block_size=_BLOCK, use_threads=False)
    with pc.open_csv(file, read_options=pc.ReadOptions(block_size=_BLOCK, use_threads=False), parse_options=parse) as header:
        names = header.schema.names
    if columns is not None:
        missing = [c for c in columns if c not in names]
        if missing:
            raise DataError(f"'{file}': has no column '{missing[0]}'{nearest(missing[0], names)}")
    convert: dict[str, Any] = {"column_types": {n: pa.string() for n in names}, "include_columns": columns or []}
    options = pc.ConvertOptions(strings_can_be_null=True, null_values=_NULLS, **convert)
    return pc.open_csv(file, read_options=read, parse_options=parse, convert_options=options)


def _frame(batch: pa.RecordBatch) -> pl.DataFrame:
    return pl.DataFrame(pa.Table.from_batches([batch]))


def _told(values: pl.Series) -> pl.DataType:
    """The type of a CSV column, from text."""
    seen = values.drop_nulls()
    if not len(seen):
        return pl.String()
    if seen.str.contains(r"^[+-]?(0|[1-9]\d*)$").all():
        return pl.Int64()
    if seen.str.to_lowercase().is_in(["true", "false"]).all():
        return pl.Boolean()
    if seen.str.contains(r"^[+-]?0\d").any() or seen.cast(pl.Float64, strict=False).null_count():
        return pl.String()
    return pl.Float64()


def _reason(error: Exception) -> str:
    """What went wrong, in one line and in the user's words."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    if "magic bytes" in text or "footer" in text.lower() or "Parquet file size" in text:
        return "is not a whole Parquet file (half-written?)"
    if "Empty CSV file" in text:
        return "the file is empty"
    return f"cannot be read: {text}"
