"""The log again, its own columns in its own order, with the teacher's beside them; in bounded memory, and whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prerank.data import DataError, Table
from prerank.data.errors import writing
from prerank.teachers.fold_log import frames

HIDDEN = "teacher_hidden"
GROUP_BYTES = 64 << 20  # of hidden vectors in a row group


def write(table: Table, out: Path, kept: NDArray[np.int64], scores: dict[str, NDArray[np.float32]],
          hidden: NDArray[np.float32] | None = None) -> int:  # fmt: skip
    """Returns the number of rows. Raises DataError when the log has such a column already, or is the file to be written.

    kept     int64 [rows on disk]: the row of `scores` [R] and `hidden` [R, K], -1: none (null)
    scores   {column: values}, NaN: null
    """
    check(table, out, [*scores, *([HIDDEN] if hidden is not None else [])])
    temporary, first, writer = out.with_name(f".{out.name}.{os.getpid()}.tmp"), 0, None
    most = len(kept) if hidden is None else max(1, GROUP_BYTES // (4 * hidden.shape[1]))
    try:
        with writing(out):
            for frame in frames(table):
                for part in frame.iter_slices(most):
                    at = kept[first : first + len(part)]
                    first += len(part)
                    arrow = part.to_arrow(compat_level=pl.CompatLevel.oldest())
                    for name, values in scores.items():
                        arrow = arrow.append_column(pa.field(name, pa.float32()), _floats(values, at))
                    if hidden is not None:
                        arrow = arrow.append_column(pa.field(HIDDEN, pa.list_(pa.float32())), _lists(hidden, at))
                    writer = writer or pq.ParquetWriter(temporary, arrow.schema, compression="zstd")
                    writer.write_table(arrow)
            if writer is not None:
                writer.close()
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    return first


def check(table: Table, out: Path, columns: list[str]) -> None:
    """Raise DataError if `write` would."""
    if any(file.resolve() == out.resolve() for file in table.files):
        raise DataError(f"out '{out}': is the log itself; give another file")
    taken = [c for c in columns if c in table.columns]
    if taken:
        raise DataError(f"log '{table.path}': has a column '{taken[0]}' already, where the teacher's would go; rename or leave it out")


def _floats(values: NDArray[np.float32], at: NDArray[np.int64]) -> pa.Array:
    """values [R] at rows [n], -1 and NaN are null."""
    found = np.where(at >= 0, values[at], np.float32(np.nan))
    return pa.array(found, pa.float32(), mask=np.isnan(found))


def _lists(hidden: NDArray[np.float32], at: NDArray[np.int64]) -> pa.Array:
    """hidden [R, K] at rows [n]; a row of NaN is null."""
    vectors = hidden[np.maximum(at, 0)]
    there = (at >= 0) & ~np.isnan(vectors[:, 0])
    offsets = np.concatenate([[0], np.cumsum(there * vectors.shape[1])])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(vectors[there].ravel(), pa.float32()),
                                    mask=pa.array(~there))  # fmt: skip
