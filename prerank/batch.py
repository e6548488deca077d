"""The one shape that flows through the house, and the two protocols that speak of it.

    B users (lists)   C candidates of a list   F fields   D field width   H heads   K head width
    T objectives (one logit each)   U distinct users of a batch   N distinct items of a batch

A batch is always lists: a click row is C = 1. Users and items are held once each, as distinct
rows, with an index from the list positions to them. That makes three promises structural: a tower
encodes each distinct row once, padding never enters a tower (padded positions point at row 0 and
are False in `where`), and changing an item cannot move a user.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

Columns = dict[str, Tensor]  # feature name -> [rows], [rows, max_length] (int32, 0 pads) or [rows(, dim)] float32


class Stage(IntEnum):
    """How far a candidate came in the cascade, from shown to never seen."""

    IMPRESSION = 0
    RANKING = 1
    PRE_RANKING = 2
    RECALL = 3
    RANDOM = 4


@dataclass(frozen=True, slots=True)
class Batch:
    """B lists of C candidates; see the module's first lines for the letters.

    user, item       distinct rows: feature name -> [U, ...] and [N, ...]
    user_index       [B]      int64, row of `user` for each list
    item_index       [B, C]   int64, row of `item` for each candidate; 0 where padded
    labels           [B, C, T] float32
    where            [B, C]   bool, False = padding
    stage            [B, C]   int8 (see Stage), or None: all are impressions
    weight, teacher, bid      [B, C] float32, or None
    ts               [B, C]   int64 milliseconds, or None
    request          [B]      int64, or None: every list is a request of its own
    """

    user: Columns
    item: Columns
    user_index: Tensor
    item_index: Tensor
    labels: Tensor
    where: Tensor
    stage: Tensor | None = None
    weight: Tensor | None = None
    teacher: Tensor | None = None
    bid: Tensor | None = None
    ts: Tensor | None = None
    request: Tensor | None = None

    @property
    def rows(self) -> int:
        """Number of lists, B."""
        return self.user_index.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""

        def move(value: Any) -> Any:
            if isinstance(value, dict):
                return {k: v.to(device, non_blocking=True) for k, v in value.items()}
            return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value

        return replace(self, **{f.name: move(getattr(self, f.name)) for f in fields(self)})

    def __repr__(self) -> str:
        b, c = self.item_index.shape
        u = next(iter(self.user.values())).shape[0] if self.user else 0
        n = next(iter(self.item.values())).shape[0] if self.item else 0
        return f"<Batch {b} lists x {c} candidates, {u} distinct users, {n} distinct items, {self.labels.shape[-1]} objectives>"


@dataclass(frozen=True, slots=True)
class Representation:
    """What a tower says of its rows: head groups, and a bias for each objective.

    groups   tuple of [rows, H_g, K_g]
    bias     [rows, T], or None
    guess    [rows, K] what the row is told of the other side's vectors (DAT's augmented vector, HIT's generator): its
             guess of the other side's first groups, flattened one after another; None where a tower makes none.
             Losses read it; it is neither stored nor scored
    """

    groups: tuple[Tensor, ...]
    bias: Tensor | None = None
    guess: Tensor | None = None

    def flat(self) -> Tensor:
        """One row per id: all groups concatenated.  # [rows, sum H_g K_g]"""
        return torch.cat([g.flatten(1) for g in self.groups], dim=1)


@dataclass(frozen=True, slots=True)
class Group:
    """Shape of one head group: Hu user heads meet Hi item heads of width K for one objective.

    `levels` says how many layers the user heads come from (IntTower's FE-Block): the last
    user_heads / levels of them are the last layer's. `cosine` heads are brought to length 1 before they meet.
    """

    user_heads: int
    item_heads: int
    width: int
    objective: int = 0
    levels: int = 1
    cosine: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """What a model says of a batch.

    logits   [B, C, T]
    user     prepared user representation, distinct rows [U, ...]; None for rankers
    item     prepared item representation, distinct rows [N, ...]; None for rankers
    groups   the head groups that the representations are made of; () for rankers
    hidden   [B, C, K] penultimate vector of a ranker, or None
    extras   by name, what a term of the objective reads of some models alone ('complexity': FSCD)
    """

    logits: Tensor
    user: Representation | None = None
    item: Representation | None = None
    groups: tuple[Group, ...] = ()
    hidden: Tensor | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class Tower(Protocol):
    """fields [rows, F, D] (None when the tower reads no field) and ids [rows] -> Representation."""

    needs_fields: bool

    def __call__(self, fields: Tensor | None, ids: Tensor) -> Representation: ...


class TokenTower(Protocol):
    """tokens [rows, L, D], ids [rows] and mask [rows, L] (False = padding) -> Representation: lists are read value by value."""

    reads_tokens: bool

    def __call__(self, tokens: Tensor, ids: Tensor, mask: Tensor) -> Representation: ...


@runtime_checkable
class Head(Protocol):
    """Compares a user with items; what is stored is what `prepare_*` returns.

    groups   shapes of what is stored
    maxsim   true when the logits are MaxSim over the groups plus the biases, so that an index may compute them; where it is
             false serving calls the head itself for the candidates given
    """

    maxsim: bool
    groups: tuple[Group, ...]
    objectives: int

    def prepare_user(self, representation: Representation) -> Representation: ...

    def prepare_items(self, representation: Representation) -> Representation: ...

    def __call__(self, user: Representation, item: Representation, user_index: Tensor, item_index: Tensor) -> Tensor:
        """Prepared representations and their indices [B], [B, C] -> logits [B, C, T]."""
        ...


class Memorising(Protocol):
    """Something a model remembers of the rows that went by (CTS, CMS), and reads as a field of a tower.

    needs_hidden   whether it must be given a ranking model's hidden vectors
    """

    needs_hidden: bool

    def observe(self, batch: Batch, output: Output, hidden: Tensor | None) -> None:
        """After the step, without a gradient: the only time that labels come in."""
        ...

    def reset(self) -> None:
        """As at birth."""
        ...

    def tensors(self) -> list[Tensor]:
        """What it holds."""
        ...

    def outside(self) -> list[Any]:
        """Stores of it that lie outside the model (`store.Outside`)."""
        ...


class PreRanker(Protocol):
    """A decoupled model: what training calls, and what export and serving call."""

    head: Head

    def __call__(self, batch: Batch) -> Output: ...

    def encode(self, side: Literal["user", "item"], columns: Columns) -> Representation:
        """Columns of one side -> its prepared representation (as it is stored or scored)."""
        ...


class PairRanker(Protocol):
    """A model that must see user and item together: what serving calls to score given candidates."""

    def pairs(self, users: Columns, items: Columns, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor | None]:
        """Columns of distinct users and items, and the rows of each pair [P], [P] -> logits [P, T], hidden [P, K] or None."""
        ...
