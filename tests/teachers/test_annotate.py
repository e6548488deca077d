"""The log again: its own columns untouched, the teacher's beside them, a bounded part at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from prerank.data import DataError, Table
from prerank.teachers import annotate


@pytest.fixture
def log(tmp_path: Path) -> pl.DataFrame:
    frame = pl.DataFrame(
        {
            "user": pl.Series([1, 2, 3, 4, 5, 6, 7], dtype=pl.Int32),
            "text": ["a", None, "c", "d", "e", "f", "g"],
            "list": [[1], [], None, [2, 3], [4], [5], [6]],
            "score": pl.Series([0.5] * 7, dtype=pl.Float32),
        }
    )
    frame.write_parquet(tmp_path / "log.parquet")
    return frame


def test_every_column_of_the_log_and_nulls_where_there_is_no_opinion(log: pl.DataFrame, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(annotate, "GROUP_BYTES", 4 * 3 * 2)  # two rows of three numbers
    kept = np.array([0, -1, 1, 2, 0, 3, 4])
    scores = np.array([0.1, np.nan, 0.3, 0.4, 0.5], np.float32)
    hidden = np.arange(15, dtype=np.float32).reshape(5, 3)
    hidden[3] = np.nan
    out = tmp_path / "out.parquet"
    assert annotate.write(Table(str(tmp_path / "log.parquet"), "log"), out, kept, {"teacher_score": scores}, hidden) == 7
    found = pl.read_parquet(out)
    assert found.select(log.columns).equals(log)
    assert found.schema == {**log.schema, "teacher_score": pl.Float32, "teacher_hidden": pl.List(pl.Float32)}
    one, three, four, five = (pytest.approx(v) for v in (0.1, 0.3, 0.4, 0.5))
    assert found["teacher_score"].to_list() == [one, None, None, three, one, four, five]
    rows = [[0.0, 1.0, 2.0], None, [3.0, 4.0, 5.0], [6.0, 7.0, 8.0], [0.0, 1.0, 2.0], None, [12.0, 13.0, 14.0]]
    assert found["teacher_hidden"].to_list() == rows
    metadata = pq.read_metadata(out)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [2, 2, 2, 1]


def test_a_write_that_fails_leaves_nothing(log: pl.DataFrame, tmp_path: Path) -> None:
    table = Table(str(tmp_path / "log.parquet"), "log")
    with pytest.raises(IndexError):
        annotate.write(table, tmp_path / "out.parquet", np.full(7, 9), {"teacher_score": np.zeros(2, np.float32)})
    assert [p.name for p in tmp_path.iterdir()] == ["log.parquet"]
    with pytest.raises(DataError, match="has a column 'score' already"):
        annotate.write(table, tmp_path / "out.parquet", np.zeros(7, int), {"score": np.zeros(1, np.float32)})
