"""Features as they were served, as raw values: what is logged is what training is to see.

    Served(generation).features(user, request)      {"city": "oslo", "age": 40.0, "tab": 2, "seen": [17, 4]}

What the request gave is told as it was given. What was stored is told by a value that encodes to the same column: a generation holds rows
of vocabularies and bins, not raw values, so that an age of 27 becomes its bin's lower edge, and a value that the vocabulary does not have
becomes one that no vocabulary has. What stood as missing is null.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prerank.data.encoder import Bins, Categorical, Encoder, Many, Standardise
from prerank.data.growing import GrowingVocabulary
from prerank.schema import FIRST, MISSING, PADDING, UNKNOWN
from prerank.serving.generation import Generation
from prerank.serving.messages import Request
from prerank.serving.users import User

Raw = Callable[[NDArray[Any]], Any]
NOBODY: dict[str, tuple[Any, ...]] = {
    "String": ("<unknown>", "<unknown, too>", "<and unknown>"),
    "Int64": (-(2**63), -(2**63) + 1, -(2**63) + 2),
    "Float64": (-1.7e308, -1.6e308, -1.5e308),
}  # by a vocabulary's type: values that it hardly has


class Served:
    """Of one generation; see the module's first lines."""

    def __init__(self, generation: Generation) -> None:
        schema, self.encoders = generation.schema, generation.encoders
        self._stored = {f.name: raw_of(self.encoders[f.name]) for f in schema.on("user") if f.side == "user" and f.name != schema.user_id}
        self._context = {f.name for f in schema.on("user") if f.side != "user"}

    def features(self, user: User, request: Request) -> dict[str, Any]:
        """Raw values by name: of stored features all, of the request's own those that it gave."""
        told = {name: raw(user.columns[name][0]) for name, raw in self._stored.items()}
        return {**told, **request.features, **request.context}

    def encodable(self, user: User, request: Request) -> dict[str, Any]:
        """The same, where what was given is no value that an event can carry (NaN, a null in a list, integers beyond 64 bits)."""
        given = [*request.features, *request.context]
        told = {name: raw(user.columns[name][0]) for name, raw in self._stored.items()}
        return told | {name: raw_of(self.encoders[name])(user.columns[name][0]) for name in given}


def raw_of(encoder: Encoder) -> Raw:
    """One row of a column -> a value that encodes to it."""
    if isinstance(encoder, Bins):
        return _bin(encoder)
    if isinstance(encoder, Standardise):
        return lambda z: float(z) * encoder.deviation + encoder.mean
    if isinstance(encoder, Categorical):
        value = _value(encoder)
        return lambda row: value(int(row))
    if isinstance(encoder, Many):
        return _many(encoder)
    return lambda vector: [float(x) for x in vector]


def _bin(encoder: Bins) -> Raw:
    edges = encoder.edges.tolist()
    first = math.nextafter(edges[0], -math.inf) if edges else 0.0

    def raw(row: Any) -> float | None:
        bin = int(row) - FIRST
        return None if row < FIRST else edges[bin - 1] if bin else first

    return raw


def _value(encoder: Categorical | Many) -> Callable[[int], Any]:
    vocabulary = encoder.vocabulary
    nobody: list[Any] = []

    def unknown() -> Any:
        if not nobody:
            values = NOBODY[str(vocabulary.dtype)]
            rows = vocabulary.rows(list(values), f"feature '{encoder.name}'")
            nobody.append(next((v for v, row in zip(values, rows.tolist(), strict=True) if row == UNKNOWN), None))
        return nobody[0]

    def value(row: int) -> Any:
        if row < FIRST:
            return unknown() if row == UNKNOWN else None
        if isinstance(vocabulary, GrowingVocabulary):
            found = vocabulary.at(np.array([row]))[0]
            return unknown() if found is None else found  # its row was given up
        return vocabulary.values[row - FIRST]

    return value


def _many(encoder: Many) -> Raw:
    value = _value(encoder)

    def raw(rows: NDArray[Any]) -> list[Any] | None:
        held = [row for row in rows.tolist() if row != PADDING]
        return None if held == [MISSING] else [value(row) for row in held if row != MISSING]

    return raw
