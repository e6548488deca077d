"""Items and users that were posted to the server: written into a journal beside the generations, and encoded over whatever is in force.

    POST /items    {"id": 7, "features": {"price": 3.5}}      the item tower encodes it; it is scorable when the answer comes
    DELETE /items/7                                           it is in nobody's answer any more
    POST /users    {"id": 42, "features": {"city": "oslo"}}   over what is stored of the user

A line of `posts.jsonl` is one change; every worker, and every server that follows the folder, reads on from where it was. The last word
on an id counts, over any generation and delta that comes: a new item tower encodes posted items anew from their features.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import nn

from prerank.batch import PreRanker
from prerank.config import nearest
from prerank.data.encoder import Column, Encoder
from prerank.data.errors import DataError, writing
from prerank.index import IdError
from prerank.schema import Feature
from prerank.serving.change import Changes, Entities
from prerank.serving.generation import Generation, locked
from prerank.serving.memory import encoded
from prerank.serving.messages import Id, MessageError
from prerank.serving.users import cold

JOURNAL = "posts.jsonl"
Side = Literal["item", "user"]
log = logging.getLogger("prerank.serving")


class Post(msgspec.Struct):
    """One change: raw features of an item or a user; None: the item is removed."""

    side: Side
    id: Id
    features: dict[str, Any] | None


class Journal:
    """The changes of a folder, in the order in which they came."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        self._offset = 0

    def append(self, posts: Sequence[Post]) -> None:
        """Durable when it returns. Raises OSError."""
        lines = b"".join(json.dumps(msgspec.to_builtins(p)).encode() + b"\n" for p in posts)
        with locked(self.path.parent), writing(self.path), self.path.open("ab") as file:
            if file.tell() and not self._ends_a_line():
                lines = b"\n" + lines  # what a killed writer left unfinished is no line of ours
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[Post]:
        """Whole lines since the last call; a line that is none is passed over."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return []
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        found = []
        for line in whole.splitlines():
            try:
                found.append(msgspec.json.decode(line, type=Post))
            except msgspec.MsgspecError as error:
                log.error("%s: a line cannot be read: %s", self.path.name, error)
        return found

    def _ends_a_line(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


class Posted:
    """The last word on every id that was posted; `count` changes were absorbed."""

    def __init__(self) -> None:
        self.count = 0
        self._last: dict[tuple[Side, Id], dict[str, Any] | None] = {}

    def absorb(self, posts: Sequence[Post]) -> None:
        """Users' features add up, an item's replace what was said before."""
        for post in posts:
            key = (post.side, post.id)
            earlier = self._last.get(key) or {}
            self._last[key] = {**earlier, **(post.features or {})} if post.side == "user" else post.features
        self.count += len(posts)

    def over(self, generation: Generation, model: nn.Module) -> Changes:
        """What they change of a generation. A post that does not fit its schema is logged and left out."""
        kinds: dict[Side, bool] = {"item": generation.item_ids.integer, "user": generation.user_ids.integer}
        fits = [(side, i, f) for (side, i), f in self._last.items() if isinstance(i, int) == kinds[side]]
        items, users = ([(i, f) for s, i, f in fits if s == side and f is not None] for side in ("item", "user"))
        try:
            of_items = encoded_items(generation, model, items) if items else None
            of_users = encoded_users(generation, users) if users else None
        except DataError:  # posted for another schema
            items, users = _fitting("item", items, generation), _fitting("user", users, generation)
            of_items = encoded_items(generation, model, items) if items else None
            of_users = encoded_users(generation, users) if users else None
        if of_items is not None:
            of_items = _finite(of_items)
        gone = _ids([i for s, i, f in fits if s == "item" and f is None], generation.item_ids.integer)
        return Changes(items=of_items, users=of_users, removed=gone)

    def __len__(self) -> int:
        return len(self._last)


Given = list[tuple[Id, dict[str, Any]]]


def check(generation: Generation, post: Post, where: str = "", model: nn.Module | None = None) -> None:
    """Raise MessageError where a post names an unknown feature, or a value or id that is of another type.

    model   given, an item is also encoded, and refused when its vector is not finite
    """
    ids = generation.item_ids if post.side == "item" else generation.user_ids
    try:
        ids.rows([post.id])
    except IdError as error:
        raise MessageError(str(error), f"{where}id") from None
    features = {f.name: f for f in _features(generation, post.side)}
    for name, value in (post.features or {}).items():
        if name not in features or name == _id_name(generation, post.side):
            valid = [n for n in features if n != _id_name(generation, post.side)]
            raise MessageError(f"unknown feature '{name}'{nearest(name, valid) if valid else '; there are none'}", f"{where}features")
        encoder = generation.encoders[name]
        if (wrong := _no_text(encoder, value)) is not None:
            raise MessageError(f"feature '{name}': must be text, got {wrong!r:.60}", f"{where}features.{name}")
        try:
            encoder.encode([value])
        except DataError as error:
            raise MessageError(str(error), f"{where}features.{name}") from None
    if model is not None and post.side == "item" and post.features is not None:
        found = encoded_items(generation, model, [(post.id, post.features)])
        if len(_finite(found).ids) == 0:
            raise MessageError("the item tower makes no finite vector of them", f"{where}features")


def encoded_items(generation: Generation, model: nn.Module, given: Given) -> Entities:
    """Item vectors (a ranker's columns) of raw features; what is not given is missing. Raises DataError."""
    ids = _ids([i for i, _ in given], generation.item_ids.integer)
    name_of_id = _id_name(generation, "item")
    columns = {}
    for f in _features(generation, "item"):
        values = list(ids) if f.name == name_of_id else [features.get(f.name) for _, features in given]
        columns[f.name] = _column(generation.encoders[f.name], values)
    if generation.meta.ranker:
        return Entities(ids, columns)
    preranker: PreRanker = model  # type: ignore[assignment]
    with torch.inference_mode():
        said = encoded(preranker, "item", {name: torch.from_numpy(column) for name, column in columns.items()})
    bias = np.zeros((len(ids), len(generation.meta.objectives)), np.float32) if said.bias is None else said.bias.numpy()
    return Entities(ids, {}, said.flat().numpy(), bias)


def encoded_users(generation: Generation, given: Given) -> Entities:
    """Users' columns: what is stored, or a cold user's, with the given features over it. Raises DataError."""
    ids = _ids([i for i, _ in given], generation.user_ids.integer)
    rows = generation.user_ids.rows(ids)
    columns = {}
    for f in _features(generation, "user"):
        nobody = cold(f, generation)
        column = np.where((rows >= 0).reshape(-1, *[1] * (nobody.ndim - 1)), generation.users[f.name][np.maximum(rows, 0)], nobody)
        if f.name == _id_name(generation, "user"):
            column[rows < 0] = generation.encoders[f.name].encode(list(ids))[rows < 0]
        told = [n for n, (_, features) in enumerate(given) if f.name in features]
        if told:
            column[told] = _column(generation.encoders[f.name], [given[n][1][f.name] for n in told])
        columns[f.name] = column
    return Entities(ids, columns)


def _finite(items: Entities) -> Entities:
    """Those whose vectors are finite; others are logged: one of them must not keep all the rest from being served."""
    if items.flat is None or items.bias is None:
        return items
    fine: NDArray[np.bool_] = np.isfinite(np.concatenate([items.flat, items.bias], 1)).all(1)
    if fine.all():
        return items
    ids = items.ids[fine] if isinstance(items.ids, np.ndarray) else [i for i, ok in zip(items.ids, fine.tolist(), strict=True) if ok]
    log.error("posted items: %d have vectors that are not finite; left out", int((~fine).sum()))
    return Entities(ids, {}, items.flat[fine], items.bias[fine])


def _fitting(side: Side, given: Given, generation: Generation) -> Given:
    """Those that fit the schema in force, which may be another one than when they were posted."""
    found = []
    for one, features in given:
        try:
            check(generation, Post(side, one, features))
            found.append((one, features))
        except MessageError as error:
            log.error("posted %s %r: %s; left out", side, one, error)
    return found


def _column(encoder: Encoder, values: list[Any]) -> Column:
    """All at once, or one by one where together they have no common type. Raises DataError."""
    try:
        return encoder.encode(values)
    except DataError:
        return np.concatenate([encoder.encode([value]) for value in values])


def _no_text(encoder: Encoder, value: Any) -> Any:
    """What of a value is no text where the vocabulary is of text: an encoder would read 7 as '7', which is another value; None: all is."""
    vocabulary = getattr(encoder, "vocabulary", None)
    if vocabulary is None or vocabulary.dtype != pl.String:
        return None
    return next((v for v in (value if isinstance(value, list) else [value]) if v is not None and not isinstance(v, str)), None)


def _features(generation: Generation, side: Side) -> list[Feature]:
    return [f for f in generation.schema.on(side) if f.side == side]


def _id_name(generation: Generation, side: Side) -> str:
    return generation.schema.item_id if side == "item" else generation.schema.user_id


def _ids(ids: list[Id], integer: bool) -> NDArray[np.int64] | list[str]:
    return np.array(ids, np.int64) if integer else [str(i) for i in ids]
