"""What CS3 remembers of users, read fresh for every request where it lies outside the generation: all of it in one round trip.

    memory = OutsideMemory.of(model, "user_id")          None: the model holds its memory itself, or has none
    model = memory.detached(model)                       its towers take what was read as columns
    columns, versions = memory.read(ids)                 of users, by their rows

The store is read before the tower runs, and the tower gets what each memory field projects as a column like any other, so that it is still
folded and recorded. A store that is away costs a request one timeout at most: for PAUSE seconds afterwards nobody tries, users are as if
they had never been seen, and `cold` says why. It is found again by whoever tries next, or by `look`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from prerank.batch import Columns, PreRanker, Representation
from prerank.store import Outside, Request, SpaceError, StoreError, gather

PAUSE = 1.0  # seconds that a store which failed is left alone
Versions = dict[str, int]


class _Cache(NamedTuple):
    """A cache of a field. name: without the store's own prefix."""

    name: str
    store: Outside


class _Field(NamedTuple):
    """A memory field of one side, and its caches in order."""

    side: Literal["user", "item"]
    name: str
    module: Any
    caches: list[_Cache]


class OutsideMemory:
    """See the module's first lines. Safe to call from several threads.

    cold    why there is nothing to read, a cache each; empty: all is well
    waits   whether it is read over a network, so that whoever has no time reads it in a thread
    """

    def __init__(self, fields: list[_Field], user_id: str) -> None:
        """Raises SpaceError for a store of another model."""
        self._fields, self._user_id = fields, user_id
        self._users = [f for f in fields if f.side == "user"]
        self._stores = [c.store for f in fields for c in f.caches]
        self._read = [c for f in self._users for c in f.caches]
        self.waits = any(not c.store.address.startswith("lmdb:") for c in self._read)
        self.cold: list[str] = []
        self._until = 0.0
        self._look()

    @classmethod
    def of(cls, model: nn.Module, user_id: str) -> OutsideMemory | None:
        """Of a two-tower whose memories lie outside it. Raises SpaceError."""
        fields = _fields(model)
        return cls(fields, user_id) if fields else None

    def detached(self, model: nn.Module) -> nn.Module:
        """A copy whose memory fields are projections of columns, by the fields' names; weights are shared."""
        copied: Any = copy.deepcopy(model, {id(t): t for t in (*model.parameters(), *model.buffers())})
        for field in self._fields:
            copied.embeddings.attach(field.name, field.name, copied.embeddings.attached[field.name].project)
        return copied

    def read(self, ids: Tensor) -> tuple[Columns, list[Versions]]:
        """Rows of users [B] -> columns [B, numbers], and for each user how often each of its caches was written; {}: it was not read."""
        if time.monotonic() >= self._until:
            try:
                found = gather([Request(cache.store, ids) for cache in self._read])
            except StoreError as error:
                self._failed([str(error)])
            else:
                self.cold = []
                with torch.no_grad():
                    columns, at = {}, 0
                    for field in self._users:
                        columns[field.name] = field.module.numbers(found[at : at + len(field.caches)])
                        at += len(field.caches)
                counts = torch.stack([memory.counts for memory in found], 1).tolist()
                return columns, [dict(zip((c.name for c in self._read), row, strict=True)) for row in counts]
        return self.nobody(len(ids)), [{} for _ in range(len(ids))]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns."""
        return tuple(f.name for f in self._users)

    def nobody(self, n: int) -> Columns:
        """Columns of users that were never seen.  # [n, numbers]"""
        return {f.name: torch.zeros(n, f.module.project.in_features) for f in self._users}

    def sample(self, n: int) -> Columns:
        """Columns that differ in everything, to compare one model with another.  # [n, numbers]"""
        random = torch.Generator().manual_seed(0)
        return {f.name: torch.rand(n, f.module.project.in_features, generator=random) for f in self._users}

    def look(self) -> None:
        """Where something was away, look whether it is back."""
        if self.cold and time.monotonic() >= self._until:
            try:
                self._look()
                if self._read:
                    gather([Request(cache.store, torch.zeros(1, dtype=torch.int64)) for cache in self._read])
            except StoreError as error:
                self._failed([str(error)])

    def _look(self) -> None:
        """Open what is not open yet. Raises SpaceError."""
        told = []
        for store in self._stores:
            try:
                store.opened()
            except SpaceError:
                raise
            except StoreError as error:
                told.append(str(error))
        if told:
            self._failed(told)
        else:
            self.cold = []

    def _failed(self, why: list[str]) -> None:
        self.cold, self._until = why, time.monotonic() + PAUSE


def patient(build: Callable[[dict[str, Any]], nn.Module], seconds: float) -> Callable[[dict[str, Any]], nn.Module]:
    """A builder whose models wait so long for a store."""

    def built(meta: dict[str, Any]) -> nn.Module:
        model = build(meta)
        for field in _fields(model):
            for cache in field.caches:
                cache.store.timeout = seconds
        return model

    return built


def encoded(model: PreRanker, side: Literal["user", "item"], columns: Columns) -> Representation:
    """`model.encode`, as of ids that were never seen where their memory is away."""
    try:
        return model.encode(side, columns)
    except StoreError as error:
        modules = [f.module for f in _fields(model) if f.side == side]
        for module in modules:
            module.cold = str(error)
        try:
            return model.encode(side, columns)
        finally:
            for module in modules:
                module.cold = None


def _fields(model: Any) -> list[_Field]:
    """Memory fields whose caches lie outside the model."""
    embeddings: Any = getattr(model, "embeddings", None)
    attached = dict(getattr(embeddings, "attached", {}))
    found = []
    sides: tuple[Literal["user", "item"], ...] = ("user", "item")
    for side in sides:
        for feature in embeddings.features[side] if attached else []:
            module = attached.get(feature.name)
            stores = [c.store for c in getattr(module, "caches", []) if isinstance(c.store, Outside)]
            if stores:
                found.append(_Field(side, feature.name, module, [_Cache(s.name.removeprefix("prerank "), s) for s in stores]))
    return found
