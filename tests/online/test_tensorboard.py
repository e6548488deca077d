"""Event files as TensorBoard reads them; read back here by a reader of its own, and by TensorBoard's where that is installed."""

from __future__ import annotations

import doctest
import math
import struct
from pathlib import Path

import pytest

from prerank.online import Told, tensorboard
from prerank.online.tensorboard import TensorBoard, crc32c

TOLD = Told(rows=70_000, rate=1234.5, lag=3, delay=math.nan, update_delay=1.5, published=300, sequence=7, alarms=1,
            metrics={"click": {"auc": 0.75, "logloss": math.nan}})  # fmt: skip
EXPECTED = {"stream/rows_per_second": 1234.5, "stream/waiting": 3, "stream/skipped": 0, "stream/drift_alarms": 1,
            "freshness/update_delay_seconds": 1.5, "serving/generation": 300, "serving/sequence": 7, "click/auc": 0.75}  # fmt: skip


def varint(data: bytes, at: int) -> tuple[int, int]:
    n = shift = 0
    while True:
        n |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not data[at - 1] & 0x80:
            return n, at


def fields(data: bytes) -> list[tuple[int, object]]:
    """A protocol buffer's fields, by the encoding's specification."""
    found: list[tuple[int, object]] = []
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        elif key & 7 == 2:
            size, at = varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            form = {1: "<d", 5: "<f"}[key & 7]
            (value,) = struct.unpack_from(form, data, at)
            at += struct.calcsize(form)
        found.append((key >> 3, value))
    return found


def records(path: Path) -> list[bytes]:
    data, found, at = path.read_bytes(), [], 0
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        for start, n in ((at, 8), (at + 12, size)):
            crc, (stored,) = crc32c(data[start : start + n]), struct.unpack_from("<I", data, start + n)
            turned = ((stored - 0xA282EAD8) & 0xFFFFFFFF) << 15
            assert (turned | turned >> 32) & 0xFFFFFFFF == crc
        found.append(data[at + 12 : at + 12 + size])
        at += 16 + size
    return found


def test_what_was_told_is_what_is_read(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path / "board")
    board.tell(TOLD)
    board.tell(TOLD)
    (path,) = (tmp_path / "board").glob("events.out.tfevents.*")
    first, *told = records(path)
    assert dict(fields(first))[3] == b"brain.Event:2"
    assert len(told) == 2
    for event in told:
        found = dict(fields(event))
        assert found[2] == 70_000
        values = [dict(fields(v)) for _, v in fields(found[5])]  # type: ignore[arg-type]
        assert {v[1].decode(): v[2] for v in values} == pytest.approx(EXPECTED)


def test_tensorboard_itself_reads_it(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    TensorBoard(tmp_path).tell(TOLD)
    found = reader.EventAccumulator(str(tmp_path)).Reload()
    assert {tag: found.Scalars(tag)[0].value for tag in found.Tags()["scalars"]} == pytest.approx(EXPECTED)
    assert found.Scalars("click/auc")[0].step == 70_000


def test_examples() -> None:
    assert doctest.testmod(tensorboard).failed == 0
