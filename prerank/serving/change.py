"""What changes between two states of a served model, and a generation with it: nothing of the old one is touched.

    newer = apply(generation, Changes(rows={"embeddings.tables.32": (rows, values)}, items=Items(ids, flat, bias)))

Copy on write, array by array: what does not change is shared, what changes is a copy, so that a request that began with the old
generation reads it to its end. Vectors of users that were stored are let go, as they may be of weights that are gone.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor

from prerank.data.encoder import AnyVocabulary, Categorical, Encoder, Many
from prerank.data.growing import GrowingVocabulary
from prerank.index import IdError, Ids, ItemMatrix, pack
from prerank.index.rows import aligned
from prerank.serving.catalogue import Catalogue
from prerank.serving.generation import Generation
from prerank.serving.meta import GenerationError

IdsGiven = NDArray[np.int64] | Sequence[str]


@dataclass(frozen=True)
class Entities:
    """New or changed items or users.

    ids       [m] distinct
    columns   {feature: column [m, ...]}: of users, and of a ranker's items
    flat      [m, width] float32, bias [m, T]: item vectors, as the model encodes them; None for users and a ranker's items
    """

    ids: IdsGiven
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    flat: NDArray[np.float32] | None = None
    bias: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Grown:
    """What a growing vocabulary gained and lost: values [n] at rows [n], and rows that hold none any more."""

    values: pl.Series
    rows: NDArray[np.int32]
    released: NDArray[np.int32]


@dataclass(frozen=True)
class Changes:
    """
    dense          {weight: all of it};   rows   {weight: (rows int64 [n], values [n, ...])}
    vocabularies   {feature that owns it: Grown}
    items, users   Entities or None;   removed   ids of items that are gone
    """

    dense: Mapping[str, Tensor] = field(default_factory=dict)
    rows: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    vocabularies: Mapping[str, Grown] = field(default_factory=dict)
    items: Entities | None = None
    users: Entities | None = None
    removed: IdsGiven = ()


def apply(generation: Generation, changes: Changes) -> Generation:
    """The generation with the changes. Raises GenerationError for changes that do not fit it; it is as it was in any case."""
    new = copy.copy(generation)
    try:
        new.weights = _weights(generation.weights, changes)
        new.encoders = _encoders(generation.encoders, changes.vocabularies)
        if changes.items is not None:
            _put_items(new, changes.items)
        if len(changes.removed):
            catalogue = _catalogue(new.item_ids)
            rows = catalogue.rows(changes.removed)
            new.item_ids = catalogue.without(rows[rows >= 0])
        if changes.users is not None:
            _put_users(new, changes.users)
    except (KeyError, IndexError, ValueError, RuntimeError, IdError) as error:
        if isinstance(error, GenerationError):
            raise
        raise GenerationError(f"changes do not fit generation {generation.meta.number}: {str(error).splitlines()[0]}") from None
    if changes.dense or changes.rows or changes.users is not None:
        new.user_vectors = new.user_bias = None
    new.meta = msgspec.structs.replace(generation.meta, items=len(new.items), users=len(new.user_ids))
    return new


def _weights(weights: dict[str, Tensor], changes: Changes) -> dict[str, Tensor]:
    new = dict(weights)
    for name in (*changes.dense, *changes.rows):
        if name not in weights:
            raise ValueError(f"weight '{name}' must be one of the model's")
    for name, whole in changes.dense.items():
        if whole.shape != weights[name].shape:
            raise ValueError(f"weight '{name}' must be {list(weights[name].shape)}, it is {list(whole.shape)}")
        if whole.is_floating_point() and not bool(whole.isfinite().all()):
            raise ValueError(f"weight '{name}' must be finite")
        new[name] = whole
    for name, (rows, values) in changes.rows.items():
        if len(rows):
            table = new[name].clone()
            if values.shape != (len(rows), *table.shape[1:]) or int(rows.min()) < 0 or int(rows.max()) >= len(table):
                raise ValueError(f"rows of weight '{name}' must lie in {list(table.shape)}")
            if values.is_floating_point() and not bool(values.isfinite().all()):
                raise ValueError(f"rows of weight '{name}' must be finite")
            table[rows] = values.to(table.dtype)
            new[name] = table
    return new


def _encoders(encoders: dict[str, Encoder], grown: Mapping[str, Grown]) -> dict[str, Encoder]:
    """Encoders over vocabularies that grew, those that share one included."""
    if not grown:
        return encoders
    newer: dict[int, AnyVocabulary] = {}
    for name, change in grown.items():
        vocabulary = getattr(encoders[name], "vocabulary", None)
        if not isinstance(vocabulary, GrowingVocabulary):
            raise ValueError(f"vocabulary '{name}' must be one that grows")
        newer[id(vocabulary)] = vocabulary.with_rows(change.values, change.rows, change.released)
    found = dict(encoders)
    for name, encoder in encoders.items():
        if isinstance(encoder, Categorical | Many) and id(encoder.vocabulary) in newer:
            found[name] = copy.copy(encoder)
            found[name].vocabulary = newer[id(encoder.vocabulary)]  # type: ignore[attr-defined]
    return found


def _catalogue(ids: Ids | Catalogue) -> Catalogue:
    return ids if isinstance(ids, Catalogue) else Catalogue(ids)


def _placed(ids: Ids | Catalogue, given: IdsGiven) -> tuple[Catalogue, NDArray[np.int64]]:
    """A catalogue that knows the given ids, and their rows."""
    catalogue = _catalogue(ids)
    rows = catalogue.every(given)
    new = np.flatnonzero(rows < 0)
    grown = catalogue.added(given[new] if isinstance(given, np.ndarray) else [given[i] for i in new.tolist()])
    rows[new] = np.arange(len(catalogue), len(grown))
    return grown.again(rows), rows


def _put_items(new: Generation, items: Entities) -> None:
    catalogue, rows = _placed(new.item_ids, items.ids)
    old, n = new.items, len(catalogue)
    bias = _longer(old.bias, n)
    if new.meta.ranker:
        new.columns = {name: _written(column, n, rows, items.columns[name]) for name, column in new.columns.items()}
        new.items = ItemMatrix.of(np.zeros((n, 0)), bias, ())
    else:
        if items.flat is None or items.bias is None or items.flat.shape != (len(rows), old.width):
            raise ValueError(f"item vectors must be [{len(rows)}, {old.width}]")
        if not (np.isfinite(items.flat).all() and np.isfinite(items.bias).all()):
            raise ValueError("item vectors must be finite")
        packed, scale = pack(items.flat, old.dtype)
        bias[rows] = items.bias
        scales = None if old.scales is None or scale is None else _written(old.scales, n, rows, scale)
        new.items = ItemMatrix(_written(old.rows, n, rows, packed), bias, old.groups, dtype=old.dtype, scales=scales)
    new.item_ids = catalogue


def _put_users(new: Generation, users: Entities) -> None:
    catalogue, rows = _placed(new.user_ids, users.ids)
    new.users = {name: _written(column, len(catalogue), rows, users.columns[name]) for name, column in new.users.items()}
    new.user_ids = catalogue


def _written(old: NDArray[Any], n: int, rows: NDArray[np.int64], values: NDArray[Any]) -> NDArray[Any]:
    """A copy of n rows, some of which are written."""
    made = _longer(old, n)
    made[rows] = values
    return made


def _longer(old: NDArray[Any], n: int) -> NDArray[Any]:
    """A copy with n rows that starts on a cache line, zeros behind the old ones."""
    made = aligned((n, *old.shape[1:]), old.dtype)
    made[: len(old)] = old
    return made
