"""A decoder that knows what a schema's features look like, so that a poisonous value is rejected where it comes in.

    waiting = LabelWaiting(settings, typed.decoder(schema))

A wrong type would otherwise stop whoever encodes a batch of columns: one word where a number belongs spoils all of them.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from prerank.schema import Feature, Schema
from prerank.stream.event import Integer

_NUMBER = Integer | float
_ONE = Integer | float | bool | str


def decoder(schema: Schema) -> msgspec.json.Decoder[Any]:
    """Accepts events whose features, where the schema knows them, have its types.

    numeric    a number; text of digits is none
    vector     `dim` numbers;  multi, sequence: a list of values, or text that is split;  categorical: one value
    null       missing, of any kind
    """
    features = msgspec.defstruct("Features", [_field(n, f) for n, f in enumerate(schema.features)], frozen=True, gc=False)
    message = msgspec.defstruct("Message", [("features", features, features())], frozen=True, gc=False)
    return msgspec.json.Decoder(message)


def _field(n: int, feature: Feature) -> tuple[str, Any, Any]:
    kind: Any = {"numeric": _NUMBER, "categorical": _ONE}.get(feature.kind)
    if feature.kind == "vector":
        kind = Annotated[list[_NUMBER], Meta(min_length=feature.dim, max_length=feature.dim)]
    elif feature.many:
        kind = str | list[Integer | float | str]
    return f"f{n}", kind | None, msgspec.field(default=None, name=feature.name)


