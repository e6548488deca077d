"""What happens, one JSON object a message: an impression, its feedback, an entity's features, or time that passed.

    {"type": "impression", "request": "r1", "user": 7, "item": 42, "ts": 1700000000000, "features": {"tab": 1, "age": "25-30"}}
    {"type": "feedback", "request": "r1", "item": 42, "ts": 1700000004000, "kind": "click"}
    {"type": "upsert", "side": "item", "id": 42, "ts": 1700000000000, "features": {"author": 9}}
    {"type": "removal", "side": "item", "id": 42, "ts": 1700000000000}
    {"type": "shadow", "request": "r1", "user": 7, "ts": 1700000000000, "arm": "next", "items": [9, 42], "scores": [0.3, 0.2]}
    {"type": "tick", "ts": 1700000060000}

Times are integer milliseconds since 1970. An impression is known by (request, item), a feedback by (request, item, kind). Decoding is
validating: unknown keys, wrong types, NaN, integers beyond 64 bits and ids beyond 1 KiB are rejected with a reason, never raised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

LONGEST_ID = 1024  # bytes of UTF-8
LONGEST = 1 << 19  # bytes of a message: with its labels it still fits into the megabyte that brokers take
DETAIL = 300  # letters of a rejection's detail: it may repeat an id of a million letters

Integer = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Time = Annotated[int, Meta(ge=0, le=2**53)]
Id = Integer | Annotated[str, Meta(min_length=1, max_length=LONGEST_ID)]
Value = Integer | float | bool | str | None | list[Integer | float | str]


class _Event(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, tag_field="type", kw_only=True, gc=False):
    """Fields that are left out stand at their defaults."""


class Impression(_Event, tag="impression"):
    """An item was shown.

    request      one answer of the server; items of a request are told apart by `item`
    user         null: nobody who is known by an id
    features     of user and context by name, as they were served: train on what was served
    score        the probability it was ranked by, and the bid where it was ranked by both
    generation   and `sequence`, `posts`, `memory`: the weights, deltas, posted changes and user memory that made it
    experiment   and `arm`: of an A/B test
    latency      of the answer, milliseconds in the server
    """

    request: Id
    user: Id | None
    item: Id
    ts: Time
    position: Integer | None = None
    features: dict[str, Value] = {}
    score: float | None = None
    generation: Integer | None = None
    memory: Id | None = None
    experiment: str | None = None
    arm: str | None = None
    bid: float | None = None
    sequence: Integer | None = None
    posts: Integer | None = None
    latency: float | None = None


class Feedback(_Event, tag="feedback"):
    """Somebody did something with an item that was shown. `value` of a click is 1, of a view e.g. its seconds."""

    request: Id
    item: Id
    ts: Time
    kind: str
    value: float = 1.0


class Shadow(_Event, tag="shadow"):
    """What another model would have answered to a request; nobody saw it. `items` are its best, `scores` what orders them."""

    request: Id
    user: Id | None
    ts: Time
    arm: str
    items: list[Id]
    scores: list[float]
    experiment: str | None = None
    generation: Integer | None = None
    sequence: Integer | None = None
    posts: Integer | None = None
    latency: float | None = None


class Upsert(_Event, tag="upsert"):
    """Features of a user or item, new or changed; those that are not named stay."""

    side: Literal["user", "item"]
    id: Id
    ts: Time
    features: dict[str, Value] = {}


class Removal(_Event, tag="removal"):
    """A user or item is gone."""

    side: Literal["user", "item"]
    id: Id
    ts: Time


class Tick(_Event, tag="tick"):
    """It is `ts` now: a quiet log's time goes on, and windows close."""

    ts: Time


Event = Impression | Feedback | Shadow | Upsert | Removal | Tick


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message that is no event. reason: malformed, too_large, long_id."""

    reason: str
    detail: str


_DECODER: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_ENCODER = msgspec.json.Encoder()


def decode(data: bytes, features: msgspec.json.Decoder[Any] | None = None) -> Event | Rejected:
    """A message -> the event, or why it is none.

    features   a decoder of `typed.decoder`, which knows their types; it has to accept the message, too

    >>> decode(b'{"type": "tick", "ts": 5}')
    Tick(ts=5)
    >>> decode(b'{"type": "tick", "ts": NaN}').reason
    'malformed'
    """
    if len(data) > LONGEST:
        return Rejected("too_large", f"a message must be at most {LONGEST} bytes; got {len(data)}")
    try:
        event = _DECODER.decode(data)
        if features is not None:
            features.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Rejected("malformed", str(error)[:DETAIL])
    if len(data) > LONGEST_ID:
        for name in ("request", "user", "item", "id", "memory"):
            value = getattr(event, name, None)
            if type(value) is str and len(value.encode()) > LONGEST_ID:
                return Rejected("long_id", f"{name}: must be at most {LONGEST_ID} bytes; got {len(value.encode())}")
    return event


def encode(event: Event) -> bytes:
    """The message of an event. Raises ValueError for what `decode` would reject; NaN by name, which JSON would quietly turn into null.

    >>> encode(Feedback(request="r1", item=42, ts=5, kind="click"))
    b'{"type":"feedback","request":"r1","item":42,"ts":5,"kind":"click"}'
    """
    for name in ("score", "bid", "value", "latency"):
        _finite(name, getattr(event, name, None))
    for score in getattr(event, "scores", ()):
        _finite("scores", score)
    for name, value in getattr(event, "features", {}).items():
        for one in value if isinstance(value, list) else (value,):
            _finite(f"feature '{name}'", one)
    try:
        data = _ENCODER.encode(event)
    except (TypeError, OverflowError, UnicodeEncodeError) as error:
        raise ValueError(f"event: {error}") from None
    found = decode(data)
    if isinstance(found, Rejected):
        raise ValueError(f"event: {found.detail}")
    return data


def _finite(name: str, value: object) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}: must be finite; got {value}")
