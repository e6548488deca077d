"""Candidates scored for a user: user columns, the user tower once, then one pass over the stored items.

    scorer = Scorer(open_current("generations"), build)
    scorer.score([Request(user=42, candidates=[7, 8, 9])])      -> [Response]

It holds one generation for good; a server that learns of a new one makes a new scorer and swaps it in between requests.
No item network runs, unknown items are listed, an unknown user gets the tower's vector of the 'unknown' id with missing features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prerank.batch import Columns, PreRanker, Representation
from prerank.config import nearest
from prerank.data.errors import DataError
from prerank.index import IdError, top_k
from prerank.schema import UNKNOWN, Feature
from prerank.serving.calibration import sigmoid
from prerank.serving.folding import folded
from prerank.serving.generation import Generation, GenerationError
from prerank.serving.messages import MessageError, Request, Response, bids, ids
from prerank.serving.tape import record

Builder = Callable[[dict[str, Any]], nn.Module]  # meta.json as a dict (model, schema, sizes) -> the model with fresh weights
SHORT = 64  # letters of a text that is remembered: a client must not fill the memory with what it sends
REMEMBERED = 65_536  # raw values a feature whose encoding is remembered; encoding one costs 25-400 us, looking it up 0.1


class Scorer:
    """See the module's first lines. Safe to call from several threads."""

    def __init__(self, generation: Generation, build: Builder) -> None:
        """Raises GenerationError when the built model does not take the generation's weights or head groups."""
        self.generation = generation
        self.objectives = tuple(generation.meta.objectives)
        schema = generation.schema
        self._features = list(schema.on("user"))
        self._by_name = {f.name: f for f in self._features}
        self._user_id = schema.user_id
        self._cold = {f.name: _missing(f, generation, schema.user_id) for f in self._features}
        self._encoded: dict[str, dict[Any, NDArray[Any]]] = {f.name: {} for f in self._features}
        self._no_bias = np.zeros((1, len(self.objectives)), np.float32)
        self._model = self._load(build)
        self._tape = record(lambda columns: _encode(self._model, columns), self._sample())

    def score(self, requests: Sequence[Request]) -> list[Response]:
        """One response a request; the user tower runs once for all of them. Raises MessageError naming the field."""
        where = [f"requests[{i}]." if len(requests) > 1 else "" for i in range(len(requests))]
        users = [self._user(r, w) for r, w in zip(requests, where, strict=True)]
        vectors, biases = self.users([columns for columns, _, _ in users])
        return [
            self._rank(request, vectors[i], biases[i], unknown, filled, where[i])
            for i, (request, (_, unknown, filled)) in enumerate(zip(requests, users, strict=True))
        ]

    def users(self, columns: Sequence[dict[str, NDArray[Any]]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One-row columns of each user -> vectors [B, sum Hu K], biases [B, T]."""
        if len(columns) == 1 and self._tape is not None:
            vector, own = self._tape(columns[0])
            return vector[None], self._no_bias if own is None else own[None]
        stacked: Columns = {name: torch.from_numpy(np.concatenate([c[name] for c in columns])) for name in columns[0]}
        with torch.inference_mode():
            said = _encode(self._model, stacked)
            bias = np.zeros((len(columns), len(self.objectives)), np.float32) if said.bias is None else said.bias.numpy()
            return said.flat().numpy(), bias

    def _user(self, request: Request, where: str) -> tuple[dict[str, NDArray[Any]], bool, list[str]]:
        """One-row columns, whether the user's id is unknown, and the features that stand as missing."""
        row = -1
        if request.user is not None:
            try:
                row = self.generation.user_ids.row(request.user)
            except IdError as error:
                raise MessageError(str(error), f"{where}user") from None
        columns, filled = {}, []
        given = {**self._given(request.features, "features", where), **self._given(request.context, "context", where)}
        for f in self._features:
            name = f.name
            if name in given:
                columns[name] = given[name]
            elif row >= 0 and f.side == "user":
                columns[name] = np.array(self.generation.users[name][row : row + 1])
            else:
                columns[name] = self._cold[name]
                if f.field:
                    filled.append(name)
        return columns, row < 0 and request.user is not None, filled

    def _given(self, raw: dict[str, Any], part: str, where: str) -> dict[str, NDArray[Any]]:
        """Raw values of a request, encoded."""
        encoded = {}
        for name, value in raw.items():
            feature = self._by_name.get(name)
            if feature is None or (feature.side == "context") != (part == "context"):
                valid = [f.name for f in self._features if (f.side == "context") == (part == "context")]
                raise MessageError(f"unknown feature '{name}'{nearest(name, valid) if valid else '; there are none'}", f"{where}{part}")
            encoded[name] = self._encode(feature, value, f"{where}{part}.{name}")
        return encoded

    def _encode(self, feature: Feature, value: Any, field: str) -> NDArray[Any]:
        """One raw value -> its column [1, ...]."""
        remembered = self._encoded[feature.name]
        short = isinstance(value, int | float | None) or (isinstance(value, str) and len(value) <= SHORT)
        key = (type(value), value) if short else None  # lists and long text are not remembered
        found = None if key is None else remembered.get(key)
        if found is None:
            try:
                found = self.generation.encoders[feature.name].encode([value])
            except DataError as error:
                raise MessageError(str(error), field) from None
            if key is not None and len(remembered) < REMEMBERED:
                remembered[key] = found
        return found

    def _rank(
        self, request: Request, user: NDArray[np.float32], bias: NDArray[np.float32], unknown: bool, filled: list[str], where: str
    ) -> Response:
        """Score, order, and say what was not known."""
        objective = self.objectives[0] if request.objective is None else request.objective
        if objective not in self.objectives:
            raise MessageError(f"unknown objective '{objective}'{nearest(objective, self.objectives)}", f"{where}objective")
        candidates, prices = ids(request), bids(request)
        calibrators = self.generation.calibrators
        if prices is not None and objective not in calibrators:
            raise MessageError(
                f"ordering by eCPM needs a calibrator for '{objective}', generation {self.generation.meta.number} has none "
                "(export with validation rows)", f"{where}bids")  # fmt: skip
        try:
            rows = self.generation.item_ids.rows(candidates)
        except IdError as error:
            raise MessageError(str(error), f"{where}candidates") from None
        logits = self.generation.items.score(user, bias, rows)  # [C, T], NaN where unknown
        values = logits[:, self.objectives.index(objective)]  # a calibrator never changes the order by probability
        if prices is not None:
            values = calibrators[objective](values) * prices
        order = top_k(values, min(request.k or len(rows), len(rows)))
        best = logits[order].T  # [T, k]
        probabilities = {t: calibrators[t](z) if t in calibrators else sigmoid(z) for t, z in zip(self.objectives, best, strict=True)}
        scores = probabilities[objective] if prices is None else probabilities[objective] * prices[order]
        binary = isinstance(request.candidates, bytes)
        missing = np.flatnonzero(rows < 0)
        return Response(
            items=_pick(candidates, order), missing=_pick(candidates, missing), scores=_numbers(scores, binary),
            probabilities={t: _numbers(p, binary) for t, p in probabilities.items()},
            logits={t: _numbers(z, binary) for t, z in zip(self.objectives, best, strict=True)},
            unknown_user=unknown, missing_features=filled,
        )  # fmt: skip

    def _load(self, build: Builder) -> nn.Module:
        """The model with the generation's weights, BatchNorm folded."""
        generation = self.generation
        model = build(msgspec.to_builtins(generation.meta)).eval().requires_grad_(False)
        try:
            model.load_state_dict(generation.weights)
        except RuntimeError as error:
            why = str(error).splitlines()[-1].strip()
            raise GenerationError(f"generation '{generation.folder}': weights do not fit the model: {why}") from None
        preranker: PreRanker = model  # type: ignore[assignment]
        groups = [(g.user_heads, g.item_heads, g.width, g.objective) for g in preranker.head.groups]
        if groups != [tuple(g) for g in generation.meta.groups]:
            expected = generation.meta.groups
            raise GenerationError(f"generation '{generation.folder}': head groups must be {expected}, the model has {groups}")
        sample = self._sample()
        return folded(model, lambda m: _encode(m, sample).flat())

    def _sample(self, rows: int = 64) -> Columns:
        """Columns of a few stored users, and the cold one, on which folding is checked."""
        n = min(rows, self.generation.meta.users)
        sample = {}
        for f in self._features:
            stored = self.generation.users[f.name][:n] if f.side == "user" else np.repeat(self._cold[f.name], n, axis=0)
            sample[f.name] = torch.from_numpy(np.concatenate([stored, self._cold[f.name]]))
        return sample

    def __repr__(self) -> str:
        return f"<Scorer of {self.generation!r}>"


def _encode(model: nn.Module, columns: Columns) -> Representation:
    preranker: PreRanker = model  # type: ignore[assignment]
    return preranker.encode("user", columns)


def _missing(feature: Feature, generation: Generation, user_id: str) -> NDArray[Any]:
    """The one-row column of a feature that nobody gave; the id of a user whom nobody knows is 'unknown', not missing."""
    column = generation.encoders[feature.name].missing()
    return np.full_like(column, UNKNOWN) if feature.name == user_id else column


def _pick(candidates: list[Any] | NDArray[np.int64], positions: NDArray[np.int64]) -> Any:
    if isinstance(candidates, np.ndarray):
        return candidates[positions].tobytes()
    return [candidates[i] for i in positions.tolist()]


def _numbers(values: NDArray[Any] | Tensor, binary: bool) -> Any:
    """A list, or one bin of little-endian float32."""
    array = np.asarray(values, "<f4")
    return array.tobytes() if binary else array.tolist()
