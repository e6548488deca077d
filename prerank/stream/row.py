"""What label waiting makes: a training row, its correction, and the dead letter of an event that could not be used."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from prerank.stream.event import DETAIL, Impression

HELD = 1 << 16  # bytes of a dead letter's message that are kept


class Source(NamedTuple):
    """Which input made a row: the offset of the entry that made it ready, and which of that entry's rows it is. Ascends in a partition."""

    offset: int
    n: int


class Row(msgspec.Struct, tag="row", tag_field="type", kw_only=True, gc=False):
    """An impression whose windows are over.

    impression   as it was logged
    labels       by kind: 0, or the feedback's value (1 where it has none)
    delay        ms of event time from the impression to the latest event when the row went out
    appended     when the log got the event that made the row ready, ms: what freshness is counted from
    source       see Source
    """

    impression: Impression
    labels: dict[str, float]
    delay: int
    appended: int
    source: Source


class Correction(Row, tag="correction", kw_only=True):
    """A row that went out already, with labels that came late. kind: the one that is new."""

    kind: str


class DeadLetter(msgspec.Struct, tag="dead", tag_field="type", kw_only=True):
    """An event that could not be used, and why.

    reason   malformed, too_large, long_id, far_future, unknown_kind, late
    offset   of the event in its partition, and ts when it was appended there
    size     bytes of the message; data: the first HELD of them
    """

    reason: str
    detail: str
    offset: int
    ts: int
    size: int
    data: bytes


class Raw(msgspec.Struct, tag="row", tag_field="type", kw_only=True, gc=False):
    """A Row whose impression is the bytes that came: nothing is encoded twice."""

    impression: msgspec.Raw
    labels: dict[str, float]
    delay: int
    appended: int
    source: tuple[int, int]


class RawCorrection(Raw, tag="correction", kw_only=True, gc=False):
    """A Correction in the same way."""

    kind: str


class _Sourced(msgspec.Struct, gc=False):
    source: Source


_ROW: msgspec.json.Decoder[Row | Correction] = msgspec.json.Decoder(Row | Correction)
_DEAD = msgspec.json.Decoder(DeadLetter)
_SOURCED = msgspec.json.Decoder(_Sourced)
_ENCODER = msgspec.json.Encoder()


def read_row(data: bytes) -> Row | Correction:
    """Raises ValueError for a message that is no row."""
    try:
        return _ROW.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"row: {str(error)[:DETAIL]}") from None


def source_of(data: bytes) -> Source:
    """Of a row or correction, without reading the rest of it. Raises ValueError for a message that is neither."""
    try:
        return _SOURCED.decode(data).source
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"row: {str(error)[:DETAIL]}") from None


def read_dead(data: bytes) -> DeadLetter:
    """Raises ValueError for a message that is no dead letter."""
    try:
        return _DEAD.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"dead letter: {str(error)[:DETAIL]}") from None


def dead(reason: str, detail: str, offset: int, ts: int, data: bytes) -> bytes:
    """The message of a dead letter."""
    return _ENCODER.encode(DeadLetter(reason=reason, detail=detail, offset=offset, ts=ts, size=len(data), data=data[:HELD]))
