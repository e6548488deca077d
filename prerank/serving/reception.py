"""POST /events: what happened to what was shown, written into the server's event log; the answer says that it is durable.

    {"type": "feedback", "request": "8f3c-17", "item": 42, "ts": 1700000004000, "kind": "click"}        or a list of events

Each event is looked at as label waiting would, with the features' types that the served model knows: what it would call a dead letter is
rejected here, by its place in the list, and the others are taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from litestar import Request as HTTPRequest
from litestar import Response, post
from litestar.handlers import HTTPRouteHandler

from prerank.schema import Schema
from prerank.serving import messages
from prerank.serving.messages import MEDIA, MessageError, Problem
from prerank.serving.recorder import Recorder
from prerank.stream import LogError, Rejected, key_of, typed
from prerank.stream.event import Tick, decode

MOST = 10_000  # events of a call


class Refusal(msgspec.Struct):
    """An event that was not taken: its place in the list, and why."""

    index: int
    reason: str
    detail: str


class Taken(msgspec.Struct):
    """How many events are in the log now, and which are not."""

    accepted: int
    rejected: list[Refusal]


class _Types:
    """A decoder that knows a schema's types, made anew when another schema is served."""

    def __init__(self) -> None:
        self._fingerprint = ""
        self._decoder: msgspec.json.Decoder[Any] | None = None

    def of(self, schema: Schema) -> msgspec.json.Decoder[Any]:
        fingerprint = schema.fingerprint()
        if self._decoder is None or fingerprint != self._fingerprint:
            self._fingerprint, self._decoder = fingerprint, typed.decoder(schema)
        return self._decoder


def route(recorder: Recorder | None, schema: Callable[[], Schema]) -> HTTPRouteHandler:
    """The handler.

    recorder   None: there is no log, and events are refused
    schema     of the model in force
    """
    types = _Types()

    @post("/events", status_code=200)
    async def events(request: HTTPRequest[Any, Any, Any]) -> Response[bytes]:
        """Take an event, or a list of them: durable when this answers. Events of wrong shape are listed, the others are taken."""
        if recorder is None:
            return _problem(409, "there is no event log: start the server with --log")
        try:
            given = _split(await request.body())
        except MessageError as error:
            return _problem(400 if error.field is None else 422, error.message, error.field)
        decoder = types.of(schema())
        accepted: list[bytes] = []
        keys: list[bytes] = []
        rejected = []
        for i, data in enumerate(given):
            event = decode(data, decoder)
            if isinstance(event, Rejected):
                rejected.append(Refusal(i, event.reason, event.detail))
            elif isinstance(event, Tick):
                rejected.append(Refusal(i, "tick", "the time of everybody is not a client's to move"))
            else:
                accepted.append(data)
                keys.append(key_of(event))
        if accepted:
            try:
                await recorder.append(accepted, keys)
            except LogError as error:
                return _problem(503, f"the event log is away, send them again: {error}")
        return Response(messages.encode(Taken(len(accepted), rejected), "json"), media_type=MEDIA["json"])

    return events


def _split(body: bytes) -> list[bytes]:
    """One event or a list of them, undecoded. Raises MessageError."""
    if body.lstrip()[:1] != b"[":
        if not body.strip():
            raise MessageError("body is empty: must be an event, or a list of them")
        return [body]
    try:
        found = [bytes(part) for part in msgspec.json.decode(body, type=list[msgspec.Raw])]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"body is not valid json: {error}") from None
    if len(found) > MOST:
        raise MessageError(f"must be at most {MOST:,} events, got {len(found):,}", "body")
    return found


def _problem(status: int, detail: str, field: str | None = None) -> Response[bytes]:
    return Response(messages.encode(Problem(detail, field), "json"), status_code=status, media_type=MEDIA["json"])
