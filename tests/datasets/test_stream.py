"""Text files in parts: types, missing values, wrong lines named, and a memory that does not grow with the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from prerank.data import DataError
from prerank.datasets import stream
from prerank.datasets.stream import FirstSeen, stream_csv

COLUMNS = {"id": pl.Int32, "price": pl.Float64, "kind": pl.String}


def read(path: Path, text: str, **how: Any) -> pl.DataFrame:
    path.write_bytes(text.encode())
    return pl.concat(stream_csv(path, COLUMNS, **how))


def test_types_and_missing_values(tmp_path: Path) -> None:
    frame = read(tmp_path / "a.csv", "id,price,kind\r\n1,2.5,x\r\n\r\n2,NULL,\r\n3.0,7,y", nulls=("", "NULL"), required=("id",))
    assert frame.schema == pl.Schema(COLUMNS)
    assert frame.rows() == [(1, 2.5, "x"), (2, None, None), (3, 7.0, "y")]


def test_names_of_a_header_are_cleaned(tmp_path: Path) -> None:
    frame = read(tmp_path / "a.csv", "\ufeffexport_2.kind\tother\texport_2.id\tprice \n'x\"\t0\t1\t2\n", separator="\t")
    assert frame.rows() == [(1, 2.0, "'x\"")]  # nothing is quoted, and the order is the caller's


def test_a_file_without_header(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", "1,2,x\n", names=("id", "price", "kind")).rows() == [(1, 2.0, "x")]


def test_parts_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BLOCK", 4096)
    path = tmp_path / "a.csv"
    path.write_text("id,price,kind\n" + "".join(f"{i},{i / 2},k{i}\n" for i in range(3000)))
    parts = list(stream_csv(path, COLUMNS))
    assert len(parts) > 5
    assert pl.concat(parts).rows() == [(i, i / 2, f"k{i}") for i in range(3000)]


def test_a_part_is_handed_on_before_the_rest_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BLOCK", 4096)
    path = tmp_path / "a.csv"
    path.write_text("id,price,kind\n" + "1,2,x\n" * 100_000 + "1,2\n")
    parts = stream_csv(path, COLUMNS)
    assert next(parts).height < 1000
    with pytest.raises(DataError, match="line 100002: has 2 of 3 columns"):
        list(parts)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,price,kind\n1,2,x\n2,3\n", r"line 3: has 2 of 3 columns: '2,3'"),
        ("id,price,kind\n1,2,x\n2,3,y,z\n", r"line 3: has 4 of 3 columns: '2,3,y,z'"),
        ("id,price,kind\n1,2,x\none,3,y\n", r"line 3: id must be a whole number \(Int32\), got 'one'"),
        ("id,price,kind\n1,2,x\n1.5,3,y\n", r"line 3: id must be a whole number \(Int32\), got '1.5'"),
        ("id,price,kind\n1,2,x\n3000000000,3,y\n", r"line 3: id must be a whole number \(Int32\), got '3000000000'"),
        ("id,price,kind\n1,2,x\n2,cheap,y\n", r"line 3: price must be a number, got 'cheap'"),
        ("id,price,kind\n1,2,x\n,3,y\n", r"line 3: id must be a whole number \(Int32\), got 'nothing'"),
        ("id,price,kind\n1,2,x\n2,3,q\n", r"line 3: kind must be one of x, y; got 'q'"),
        ("id,cost,kind\n1,2,x\n", r"must have the official columns; missing: price; got id, cost, kind"),
        ("id,price,kind\n", "has no rows"),
        ("", "is empty"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=rf"file '.*a.csv':? {said}$") as caught:
        read(tmp_path / "a.csv", text, required=("id",), allowed={"kind": ("x", "y")})
    assert "\n" not in str(caught.value)


def test_what_is_no_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,price,kind\n1,2,\xff\xfe\n")
    with pytest.raises(DataError, match=r"file '.*a.csv': cannot be read: .*invalid UTF8"):
        list(stream_csv(tmp_path / "a.csv", COLUMNS))
    with pytest.raises(DataError, match=r"file '.*b.csv': cannot be read: No such file"):
        list(stream_csv(tmp_path / "b.csv", COLUMNS))


@pytest.mark.parametrize("compact", [1, 1 << 20])
def test_the_first_row_of_a_key_stays(compact: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "COMPACT", compact)
    first = FirstSeen("id")
    for start in range(0, 60, 3):
        first.update(pl.DataFrame({"id": [(start + j) % 7 for j in range(3)], "at": list(range(start, start + 3))}))
    assert first.get().rows() == [(i, i) for i in range(7)]
