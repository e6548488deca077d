"""Tables: every format gives the same columns, in batches; every broken file gives one line."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest

from prerank.data import DataError, Table
from prerank.data import table as module

from .conftest import LOG, write_table


def read(table: Table) -> dict[str, list]:
    return table.read(dict.fromkeys(table.columns)).to_dict(as_series=False)


def test_csv_columns_are_told_from_their_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("i,f,t,b,zip,empty,mixed\n1,1.5,x,true,01234,,1\n,2,NULL,False,99999,,x\n3,nan,z,,10000,,2.5\n")
    table = Table(tmp_path / "a.csv", "log")
    types = {"i": pl.Int64, "f": pl.Float64, "t": pl.String, "b": pl.Boolean, "zip": pl.String, "empty": pl.String, "mixed": pl.String}
    assert table.columns == types
    assert read(table)["i"] == ["1", None, "3"]  # cells are handed on as text
    assert table.read({"i": pl.Int64(), "f": pl.Float64()}).to_dict(as_series=False) == {"i": [1, None, 3], "f": [1.5, 2.0, None]}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_formats_agree(tmp_path: Path, suffix: str) -> None:
    table = Table(write_table(LOG, tmp_path / f"log.{suffix}"), "log")
    types = {"user": pl.Int64(), "item": pl.String(), "rating": pl.Int64(), "seconds": pl.Int64(), "tab": pl.Int64(), "price": pl.Float64()}
    assert table.columns == types
    assert table.read(dict(types)).to_dict(as_series=False) == LOG


def test_gzipped_csv(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    assert read(Table(tmp_path / "a.csv.gz", "log")) == {"a": ["1"], "b": ["2"]}


def test_folder_and_glob_read_parts_in_order(tmp_path: Path) -> None:
    for day in (2, 1):
        (tmp_path / f"day={day}").mkdir()
        write_table({"a": [day * 10, day * 10 + 1]}, tmp_path / f"day={day}" / "part.parquet")
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "_temporary").mkdir()
    (tmp_path / "_temporary" / "part.parquet").write_bytes(b"half")
    for path in (str(tmp_path), str(tmp_path / "day=*" / "*.parquet")):
        table = Table(path, "log")
        assert read(table) == {"a": [10, 11, 20, 21]}
        assert [p.first for p in table.batches({"a": None})] == [0, 0]
        assert table.rows == 4


def test_batches_are_small_and_know_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 5)
    parts = list(Table(write_table(LOG, tmp_path / "log.parquet"), "log").batches({"user": None}))
    assert [len(p.frame) for p in parts] == [5, 5, 2]
    assert [p.first for p in parts] == [0, 5, 10]
    assert parts[2].place(1) == "row 12 of log.parquet"


def test_wide_rows_come_in_shorter_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES", 1 << 16)
    wide = [[float(i + 1000 * r) for i in range(256)] for r in range(200)]  # 2 kB a row
    table = Table(write_table({"a": list(range(200)), "wide": wide}, tmp_path / "log.parquet"), "log")
    parts = list(table.batches({"a": None, "wide": None}))
    assert 10 < max(len(p.frame) for p in parts) < 100
    assert pl.concat([p.frame for p in parts])["wide"].to_list() == wide
    assert [len(p.frame) for p in table.batches({"a": None})] == [200]  # a column that is not read does not count


def test_csv_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 4096)
    (tmp_path / "a.csv").write_text("a\n" + "".join(f"{i}\n" for i in range(5000)))
    table = Table(tmp_path / "a.csv", "log")
    parts = list(table.batches({"a": pl.Int64()}))
    assert len(parts) > 3
    assert pl.concat([p.frame for p in parts])["a"].to_list() == list(range(5000))
    assert [p.first for p in parts[1:]] == [p.frame["a"][0] for p in parts[1:]]


def test_wrong_type_names_column_and_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 64)
    monkeypatch.setattr(module, "SNIFF", 3)
    (tmp_path / "a.csv").write_text("a\n" + "1\n" * 16 + "n/a\n" + "1\n" * 20)
    with pytest.raises(DataError, match=r"log, column 'a': 1 value is not an integer, first at row 17 of a.csv: 'n/a'"):
        list(Table(tmp_path / "a.csv", "log").batches({"a": pl.Int64()}))


def test_require_names_the_nearest_of_every_missing_column(tmp_path: Path) -> None:
    table = Table(write_table(LOG, tmp_path / "log.csv"), "log")
    table.require({"user": "data.user_id"})
    with pytest.raises(DataError) as caught:
        table.require({"usr": "data.user_id", "ratin": "label 'like'"})
    first, second = str(caught.value).splitlines()
    assert first.startswith("data.user_id: log '")
    assert first.endswith("has no column 'usr'; did you mean 'user'?")
    assert second.endswith("has no column 'ratin'; did you mean 'rating'?")


def broken(tmp_path: Path, kind: str) -> str:
    """Path of a file that is broken in one way."""
    path = tmp_path / f"{kind}.csv"
    content = {
        "empty": b"",
        "header": b"a,b\n",
        "ragged": b"a,b\n1,2\n1,2,3\n",
        "twice": b"a,a\n1,2\n",
        "latin": "a\nxé\n".encode("latin1"),
    }
    if kind in content:
        path.write_bytes(content[kind])
    elif kind == "folder":
        path.mkdir()
    elif kind in ("half", "text", "norows"):
        path = tmp_path / f"{kind}.parquet"
        write_table({"a": list(range(1000 if kind != "norows" else 0))}, path)
        if kind == "half":
            path.write_bytes(path.read_bytes()[:1500])
        if kind == "text":
            path.write_text("a,b\n1,2\n")
    return str(path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such file"),
        ("folder", "no such file, or no CSV or Parquet file in it"),
        ("empty", "the file is empty"),
        ("header", "has a header but no rows"),
        ("norows", "has no rows"),
        ("ragged", "Expected 2 columns, got 3"),
        ("twice", "column 'a' occurs 2 times"),
        ("latin", "invalid UTF8 data"),
        ("half", "is not a whole Parquet file (half-written?)"),
        ("text", "is not a whole Parquet file (half-written?)"),
    ],
)
def test_broken_files(tmp_path: Path, kind: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(Table(broken(tmp_path, kind), "log"))
    text = str(caught.value)
    assert text.startswith("log '")
    assert message in text
    assert kind in text
    assert "\n" not in text


def test_damaged_pages_are_noticed_while_reading(tmp_path: Path) -> None:
    path = write_table({"a": list(range(100_000))}, tmp_path / "a.parquet")
    content = bytearray(path.read_bytes())
    content[10:5000] = b"\xff" * 4990
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        read(Table(path, "log"))


def test_parts_must_have_the_columns_of_the_first(tmp_path: Path) -> None:
    write_table({"a": [1], "b": [1]}, tmp_path / "1.parquet")
    write_table({"a": [1]}, tmp_path / "2.parquet")
    with pytest.raises(DataError, match=r"2.parquet': this part has no column 'b'"):
        read(Table(tmp_path, "log"))


def test_a_half_written_part_is_named(tmp_path: Path) -> None:
    write_table({"a": [1]}, tmp_path / "1.parquet")
    (tmp_path / "2.parquet").write_bytes((tmp_path / "1.parquet").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"2.parquet': is not a whole Parquet file"):
        Table(tmp_path, "log")


def test_line_ends_inside_quotes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('a,b\n"one\ntwo, ""three""",1\n"",2\n')
    assert read(Table(tmp_path / "a.csv", "items")) == {"a": ['one\ntwo, "three"', None], "b": ["1", "2"]}


def test_rows_of_a_csv_are_estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SNIFF", 100)
    monkeypatch.setattr(module, "_BLOCK", 4096)
    table = Table(write_table({"a": list(range(20_000)), "b": ["x"] * 20_000}, tmp_path / "a.csv"), "log")
    assert table.rows == pytest.approx(20_000, rel=0.5)


def test_mixed_formats(tmp_path: Path) -> None:
    write_table({"a": [1]}, tmp_path / "1.parquet")
    write_table({"a": [1]}, tmp_path / "2.csv")
    with pytest.raises(DataError, match="mixes Parquet and other files"):
        Table(str(tmp_path / "*"), "log")
