"""The running metrics as TensorBoard reads them, with nothing to install: an event file is written as its format says.

    board = TensorBoard(Path("runs/online/tensorboard"))
    board.tell(told)                                            then: tensorboard --logdir runs

A file is a row of records: length (8 bytes), its masked CRC-32C (4), the event, its masked CRC-32C (4), all little-endian. An event is a
protocol buffer (tensorflow/core/util/event.proto): 1 wall time, 2 step, 3 version of the file, 5 summary; of a summary's values: 1 tag,
2 number. A process writes a file of its own, so that a run that goes on later adds another.
"""

from __future__ import annotations

import math
import os
import socket
import struct
import time
from functools import cache
from pathlib import Path

from prerank.online.told import Told


class TensorBoard:
    """Appends scalars to an event file of the folder; both are made by the first."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"events.out.tfevents.{time.time_ns() // 10**9}.{socket.gethostname()}.{os.getpid()}"

    def tell(self, told: Told) -> None:
        """A step is a row that was learned from. Raises OSError."""
        values = {"stream/rows_per_second": told.rate, "stream/waiting": float(told.lag), "stream/skipped": float(told.skipped),
                  "stream/drift_alarms": float(told.alarms), "freshness/label_delay_seconds": told.delay,
                  "freshness/update_delay_seconds": told.update_delay, "serving/generation": float(told.published),
                  "serving/sequence": float(told.sequence)}  # fmt: skip
        for label, numbers in (told.metrics or {}).items():
            values |= {f"{label}/{name}": value for name, value in numbers.items()}
        self.add(told.rows, values)

    def add(self, step: int, values: dict[str, float]) -> None:
        """Numbers by tag; those that are not known are left out. Raises OSError."""
        if not self._path.exists():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._write(_double(1, time.time()) + _bytes(3, b"brain.Event:2"))
        summary = b"".join(
            _bytes(1, _bytes(1, tag.encode()) + _tag(2, 5) + struct.pack("<f", v)) for tag, v in values.items() if not math.isnan(v)
        )
        self._write(_double(1, time.time()) + _tag(2, 0) + _varint(step) + _bytes(5, summary))

    def _write(self, event: bytes) -> None:
        length = struct.pack("<Q", len(event))
        with self._path.open("ab") as file:
            file.write(length + _masked(length) + event + _masked(event))


def _tag(field: int, kind: int) -> bytes:
    return bytes([field << 3 | kind])


def _double(field: int, value: float) -> bytes:
    return _tag(field, 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _tag(field, 2) + _varint(len(value)) + value


def _varint(n: int) -> bytes:
    """Seven bits a byte, the least first; the highest bit says that more follow.

    >>> _varint(300)
    b'\\xac\\x02'
    """
    found = bytearray()
    while n > 0x7F:
        found.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*found, n])


def _masked(data: bytes) -> bytes:
    """CRC-32C, turned by 15 bits and shifted, as TFRecord has it: a CRC of data that holds CRCs would be weak."""
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC (RFC 3720, B.4).

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    table, crc = _crcs(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


@cache
def _crcs() -> tuple[int, ...]:
    found = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ 0x82F63B78 if n & 1 else n >> 1
        found.append(n)
    return tuple(found)
