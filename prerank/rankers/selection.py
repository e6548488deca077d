"""What COLD and FSCD share: an MLP over the fields of a pair, a gate that weighs them, and a list of those that are kept.

A field of the pair is a field of the schema, by its name, or a cross of two, 'user_field*item_field': the product of their
vectors. `keep` names the fields that a smaller model has left; what nobody keeps is neither looked up nor stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prerank.config import nearest
from prerank.layers import MLP, Linear
from prerank.schema import Schema

Cross = Sequence[Sequence[str]]  # pairs of a user field and an item field


@dataclass(frozen=True, slots=True)
class Selection:
    """Which fields of a pair a model reads.

    schema   with the fields that are looked up; the others are no fields of it
    names    of the fields that the gate weighs, in order: the schema's, then the crosses
    parts    for each name the places of its one or two factors among the fields that are looked up
    """

    schema: Schema
    names: tuple[str, ...]
    parts: tuple[tuple[int, ...], ...]

    @property
    def sides(self) -> tuple[str, ...]:
        """Of each name: 'user', 'item' or 'both'."""
        users = len(self.schema.fields("user"))
        return tuple("both" if len(p) == 2 else "user" if p[0] < users else "item" for p in self.parts)


def select(schema: Schema, keep: Sequence[str] | None = None, cross: Cross = ()) -> Selection:
    """The fields of a pair, all or those of `keep`. Raises ValueError."""
    sides = {"user": [f.name for f in schema.fields("user")], "item": [f.name for f in schema.fields("item")]}
    factors: dict[str, tuple[str, ...]] = {name: (name,) for name in (*sides["user"], *sides["item"])}
    for pair in cross:
        factors |= _crossed(pair, sides)
    names = list(factors) if keep is None else [n for n in factors if n in keep]
    _check(keep, names, factors, sides)
    needed = {part for name in names for part in factors[name]}
    narrow = schema.model_copy(update={
        "features": tuple(f.model_copy(update={"field": f.field and f.name in needed}) for f in schema.features)})  # fmt: skip
    place = {f.name: i for i, f in enumerate([*narrow.fields("user"), *narrow.fields("item")])}
    return Selection(narrow, tuple(names), tuple(tuple(place[p] for p in factors[n]) for n in names))


class SelectingNetwork(nn.Module):
    """gate * fields -> flattened -> MLP -> linear.

    gate   fields [P, m, D] -> weights [P, m]; None: all fields count alike
    """

    left: Tensor
    right: Tensor

    def __init__(self, selection: Selection, gate: nn.Module | None, deep: MLP, width: int, objectives: int) -> None:
        super().__init__()
        self.names = selection.names
        self.plain = selection.parts == tuple((i,) for i in range(len(selection.parts)))
        self.singles = sum(len(p) == 1 for p in selection.parts)
        self.register_buffer("left", torch.tensor([p[0] for p in selection.parts]), persistent=False)
        self.register_buffer("right", torch.tensor([p[1] for p in selection.parts if len(p) == 2], dtype=torch.int64), persistent=False)
        self.gate = gate
        self.deep = deep
        self.output = Linear(width, objectives)

    def select(self, fields: Tensor) -> Tensor:
        """Fields that are looked up [P, F, D] -> those that are weighed, crosses included [P, m, D]."""
        if self.plain:
            return fields
        chosen = fields.index_select(1, self.left)
        crossed = chosen[:, self.singles :] * fields.index_select(1, self.right)
        return torch.cat([chosen[:, : self.singles], crossed], dim=1)

    def forward(self, fields: Tensor) -> tuple[Tensor, Tensor]:
        """[P, F, D] -> logits [P, T], hidden [P, hidden[-1]]."""
        x = self.select(fields)
        if self.gate is not None:
            x = x * self.gate(x).unsqueeze(2)
        hidden = self.deep(x.flatten(1))
        return self.output(hidden), hidden


def _crossed(pair: Sequence[str], sides: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    if len(pair) != 2:
        raise ValueError(f"cross: each must be a user field and an item field; got {list(pair)}")
    for side, name in zip(("user", "item"), pair, strict=True):
        if name not in sides[side]:
            raise ValueError(f"cross: '{name}' is no {side} field{nearest(name, sides[side])}")
    return {"*".join(pair): tuple(pair)}


def _check(keep: Sequence[str] | None, names: list[str], factors: dict[str, tuple[str, ...]], sides: dict[str, list[str]]) -> None:
    for name in keep or ():
        if name not in factors:
            raise ValueError(f"keep: '{name}' is no field{nearest(name, factors)}")
    read = {part for name in names for part in factors[name]}
    for side, own in sides.items():
        if not read & set(own):
            raise ValueError(f"keep: must leave at least one field of the {side}; got {list(keep or ())}")
