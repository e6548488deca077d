"""Whom a request speaks of, and the user tower for them: stored columns, overridden by what the request gives.

An unknown user gets the tower's vector of the 'unknown' id with missing features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from prerank.batch import Columns, PreRanker, Representation
from prerank.config import nearest
from prerank.data.errors import DataError
from prerank.index import IdError
from prerank.schema import UNKNOWN, Feature
from prerank.serving.generation import Generation
from prerank.serving.memory import OutsideMemory
from prerank.serving.messages import MessageError, Request
from prerank.serving.tape import record

Array = NDArray[Any]
SHORT = 64  # letters of a text that is remembered: a client must not fill the memory with what it sends
REMEMBERED = 65_536  # raw values a feature whose encoding is remembered; encoding one costs 25-400 us, looking it up 0.1


class User(NamedTuple):
    """A request's user: one-row columns, whether the id is unknown, and the features that stand as missing.

    stored   row of the generation's user vectors that says the same, -1: none does
    """

    columns: dict[str, Array]
    unknown: bool
    missing: list[str]
    stored: int = -1


class Users:
    """The user side of a generation. Safe to call from several threads."""

    def __init__(self, generation: Generation, memory: OutsideMemory | None = None) -> None:
        """memory: read by whoever asks for vectors, and put among the columns of each user."""
        self._generation, self._memory = generation, memory
        self._objectives = len(generation.meta.objectives)
        self._features = list(generation.schema.on("user"))
        self._by_name = {f.name: f for f in self._features}
        self._cold = {f.name: cold(f, generation) for f in self._features}
        # Plain views: a memory map's own slicing costs microseconds.
        self._stored = {f.name: np.asarray(generation.users[f.name]) for f in self._features if f.side == "user"}
        self._context = [f for f in self._features if f.side != "user"]
        self._encoded: dict[str, dict[Any, Array]] = {f.name: {} for f in self._features}
        self._no_bias = np.zeros((1, self._objectives), np.float32)

    def learn(self, model: nn.Module, rows: int = 64) -> None:
        """Record the tower of a model in eval mode, and compare the tape with it for so many users; until then there are no vectors."""
        self._model = model
        self._tape = record(lambda columns: encode(model, columns), self.sample(rows))

    def of(self, request: Request, where: str) -> User:
        """The user of a request. Raises MessageError; `where` stands before the field that it names."""
        row = -1
        if request.user is not None:
            try:
                row = self._generation.user_ids.row(request.user)
            except IdError as error:
                raise MessageError(str(error), f"{where}user") from None
        if row < 0:
            columns, missing = self._cold.copy(), [f.name for f in self._features if f.field]
        else:
            columns = {name: column[row : row + 1] for name, column in self._stored.items()}
            missing = []
            for f in self._context:
                columns[f.name] = self._cold[f.name]
                if f.field:
                    missing.append(f.name)
        for part, raw in (("features", request.features), ("context", request.context)):
            for name, value in raw.items():
                columns[name] = self._given(name, value, part, where)
                if name in missing:
                    missing.remove(name)
        given = bool(request.features or request.context)
        stored = -1 if given or self._generation.user_vectors is None or self._memory is not None else row
        return User(columns, row < 0 and request.user is not None, missing, stored)

    def vectors(self, users: Sequence[User]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Vectors [B, sum Hu K] and biases [B, T]."""
        if any(u.stored >= 0 for u in users):
            return self._with_stored(users)
        if len(users) == 1 and self._tape is not None:
            vector, own = self._tape(users[0].columns)
            return vector[None], self._no_bias if own is None else own[None]
        names = [*self._by_name, *(() if self._memory is None else self._memory.names)]
        stacked: Columns = {name: torch.from_numpy(np.concatenate([u.columns[name] for u in users])) for name in names}
        with torch.inference_mode():
            said = encode(self._model, stacked)
            bias = np.zeros((len(users), self._objectives), np.float32) if said.bias is None else said.bias.numpy()
            return said.flat().numpy(), bias

    def _with_stored(self, users: Sequence[User]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Vectors and biases, the tower run only for users that no stored vector speaks for."""
        generation, stored = self._generation, [u.stored for u in users]
        assert generation.user_vectors is not None
        assert generation.user_bias is not None
        vectors, biases = generation.user_vectors[stored], generation.user_bias[stored]
        others = [i for i, row in enumerate(stored) if row < 0]
        if others:
            vectors[others], biases[others] = self.vectors([users[i] for i in others])
        return vectors, biases

    def sample(self, rows: int = 64) -> Columns:
        """Columns of a few stored users, and the cold one, on which folding and recording are checked."""
        n = min(rows, self._generation.meta.users)
        sample = {}
        for f in self._features:
            stored = self._stored[f.name][:n] if f.side == "user" else np.repeat(self._cold[f.name], n, axis=0)
            sample[f.name] = torch.from_numpy(np.concatenate([stored, self._cold[f.name]]))
        return sample if self._memory is None else {**sample, **self._memory.sample(n + 1)}

    def _given(self, name: str, value: Any, part: str, where: str) -> Array:
        """A raw value of a request -> its column [1, ...]."""
        feature = self._by_name.get(name)
        if feature is None or (feature.side == "context") != (part == "context"):
            valid = [f.name for f in self._features if (f.side == "context") == (part == "context")]
            raise MessageError(f"unknown feature '{name}'{nearest(name, valid) if valid else '; there are none'}", f"{where}{part}")
        remembered = self._encoded[name]
        short = isinstance(value, int | float | None) or (isinstance(value, str) and len(value) <= SHORT)
        key = (type(value), value) if short else None  # lists and long text are not remembered
        found = None if key is None else remembered.get(key)
        if found is None:
            try:
                found = self._generation.encoders[name].encode([value])
            except DataError as error:
                raise MessageError(str(error), f"{where}{part}.{name}") from None
            if key is not None and len(remembered) < REMEMBERED:
                remembered[key] = found
        return found


def encode(model: nn.Module, columns: Columns) -> Representation:
    """The user tower's prepared representation."""
    preranker: PreRanker = model  # type: ignore[assignment]
    return preranker.encode("user", columns)


def cold(feature: Feature, generation: Generation) -> Array:
    """The one-row column of a feature that nobody gave; the id of a user whom nobody knows is 'unknown', not missing."""
    column = generation.encoders[feature.name].missing()
    return np.full_like(column, UNKNOWN) if feature.name == generation.schema.user_id else column
