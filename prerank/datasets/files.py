"""Official text files -> frames, strictly: a line that is not what its documentation says is named, never guessed.

Everything is read as text first and cast by column, so that an error can say file, line, column and what came.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import polars as pl

from prerank.data.errors import DataError


def read_dat(path: Path, columns: dict[str, Any]) -> pl.DataFrame:
    """A `::` separated ISO-8859-1 file without header -> frame; no value may be empty.

    Whole lines are split at once: the separator has two bytes and titles hold single colons, so no CSV reader takes it.
    """
    text = _bytes(path).decode("iso-8859-1")
    lines = pl.Series("line", text.replace("\r\n", "\n").removesuffix("\n").split("\n"))
    parts = lines.str.split("::")
    wrong = (parts.list.len() != len(columns)).arg_true()
    if len(wrong):
        at = int(wrong[0])
        came = f"{len(parts[at])}: {lines[at][:80]!r}"
        raise DataError(f"file '{path}' line {at + 1}: must be {'::'.join(columns)} ({len(columns)} columns), got {came}")
    values = [parts.list.get(i).alias(name) for i, name in enumerate(columns)]
    return pl.DataFrame([cast(path, v, dtype, 1, required=True) for v, dtype in zip(values, columns.values(), strict=True)])


def read_csv(path: Path, columns: dict[str, Any], *, required: tuple[str, ...]) -> pl.DataFrame:
    """A CSV file with a header -> frame of its columns: those named get their type, the others stay text.

    Only `required` columns may not be empty. Whole numbers may be written `3.0`, as files that went through pandas are.
    """
    content = _bytes(path)
    try:
        frame = pl.read_csv(content, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"file '{path}'{_ragged(content)}: not a CSV file with a header: {str(error).splitlines()[0]}") from None
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        came = ", ".join(frame.columns)[:200]
        raise DataError(f"file '{path}': must have the official columns; missing: {', '.join(missing)}; got {came}")
    if ragged := _ragged(content.rstrip(b"\n").rpartition(b"\n")[2], frame.width):
        raise DataError(f"file '{path}': its last line{ragged.partition(':')[2]}: the file was cut")
    if frame.is_empty():
        raise DataError(f"file '{path}': has a header and no rows")
    return frame.with_columns(cast(path, frame[name], dtype, 2, required=name in required) for name, dtype in columns.items())


def _bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"file '{path}': cannot be read: {error.strerror}") from None
    if not content.strip():
        raise DataError(f"file '{path}': is empty")
    return content


def cast(path: Path, values: pl.Series, dtype: Any, first_line: int, *, required: bool) -> pl.Series:
    """Text -> dtype; DataError at the first value that is not one. Whole numbers may be written `3.0`.

    first_line   line of the first value in the file
    required     whether a value may be nothing
    """
    empty = values.is_null() | (values == "")
    found = values.cast(dtype, strict=False)
    if dtype.is_integer() and found.null_count() > empty.sum():
        whole = values.cast(pl.Float64, strict=False)
        found = found.fill_null(whole.set(whole != whole.floor(), None).cast(dtype, strict=False))
    wrong = (empty if required else pl.zeros(len(empty), eager=True, dtype=pl.Boolean)) | (~empty & found.is_null())
    bad = wrong.arg_true()
    if len(bad):
        at = int(bad[0])
        kind = "text" if dtype == pl.String else f"a whole number ({dtype})" if dtype.is_integer() else "a number"
        raise DataError(f"file '{path}' line {at + first_line}: {values.name} must be {kind}, got {values[at] or 'nothing'!r}")
    return found


def _ragged(content: bytes, width: int | None = None) -> str:
    """` line n: has a of b columns` of the first line with another number of columns than the header (or `width`), else nothing."""
    lines = csv.reader(content.decode("utf-8", "replace").splitlines())
    for number, line in enumerate(lines, start=1):
        width = width or len(line)
        if len(line) != width:
            return f" line {number}: has {len(line)} of {width} columns"
    return ""
