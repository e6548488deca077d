"""DSSM two-tower: an MLP a side, and a (scaled) cosine or dot product.

    u = norm(MLP(x_u))   v = norm(MLP(x_v))   logit = t u.v + b

Huang et al., "Learning Deep Structured Semantic Models for Web Search using Clickthrough Data",
CIKM 2013 (eq. 3-4). The learned temperature t and bias b are ours: without them a
cosine in [-1, 1] is the logit, and LogLoss is crippled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from prerank.batch import Group, Representation, Tower
from prerank.layers import GATES, MLP, Block, Embeddings, FullyConnected, Linear
from prerank.schema import Schema
from prerank.towers.heads import MaxSim
from prerank.towers.mf import id_groups, with_id_head
from prerank.towers.two_tower import TwoTower

SIDES: tuple[Literal["user", "item"], ...] = ("user", "item")


class MLPTower(nn.Module):
    """Fields -> flattened -> MLP -> one vector an objective, or several.  # T x [rows, H, K]

    fields, field_width   F and D
    hidden                widths of the layers
    width                 K of the linear layer after them; None: the last layer's output is the vector
                          (the released IntTower code's baseline; one objective only)
    gate                  'light_se', 'senet' or None: re-weights the fields first
    block                 builds a layer; this is where CAS goes
    heads                 H vectors an objective
    extra                 width of what joins the flattened fields, see `joined`
    """

    needs_fields = True

    def __init__(self, fields: int, field_width: int, hidden: Sequence[int], width: int | None, objectives: int = 1,
                 gate: str | None = None, block: Block = FullyConnected, *, heads: int = 1, extra: int = 0) -> None:  # fmt: skip
        super().__init__()
        if width is None and objectives > 1:
            raise ValueError(f"width: must be given for several objectives; there are {objectives}")
        self.shape = (objectives, heads, width or hidden[-1])
        self.gate = GATES[gate](fields) if gate else nn.Identity()
        self.mlp = MLP(fields * field_width + extra, hidden, block)
        self.project = Linear(hidden[-1], objectives * heads * width) if width is not None else nn.Identity()

    def forward(self, fields: Tensor | None, ids: Tensor) -> Representation:
        assert fields is not None
        return self.joined(fields)

    def joined(self, fields: Tensor, extra: Tensor | None = None) -> Representation:
        """The same, with a vector [rows, extra] beside the (gated) fields."""
        x = self.gate(fields).flatten(1)
        vector = self.project(self.mlp(x if extra is None else torch.cat([x, extra], dim=1)))  # [rows, T*H*K]
        return Representation(vector.unflatten(1, self.shape).unbind(dim=1))


def check_options(hidden: Sequence[int], similarity: str, gate: str | None, **sizes: int | None) -> None:
    """Raise ValueError for what MLP towers cannot be made of; sizes must be at least 1 where they are given."""
    if similarity not in ("cosine", "dot"):
        raise ValueError(f"similarity: must be cosine or dot; got '{similarity}'")
    if not hidden:
        raise ValueError("hidden: must name the width of at least one layer; got none")
    if gate is not None and gate not in GATES:
        raise ValueError(f"gate: must be one of {', '.join(GATES)} or null; got '{gate}'")
    for name, value in sizes.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}: must be at least 1; got {value}")


def dssm(
    schema: Schema,
    sizes: Mapping[str, int],
    *,
    hidden: Sequence[int] = (300, 300, 128),
    width: int | None = 64,
    similarity: str = "cosine",
    temperature: str = "learnable",
    bias: bool = True,
    norm: bool = True,
    dropout: float = 0.0,
    activation: str = "relu",
    gate: str | None = None,
    id_head: int | None = None,
    id_history: bool = False,
    embedding_std: float = 0.05,
    linear_std: float | None = None,
) -> TwoTower:
    """DSSM; see the module's first lines.

    hidden        widths of the MLP's layers, both sides
    width         K of the final linear layer; None: the MLP's own output is the vector
    similarity    'cosine' or 'dot'
    temperature   'learnable' scales the similarity; 'none' is the bare cosine of IntTower's baseline
    bias          one learned bias an objective
    id_head       width of an id head beside the MLP, see towers/mf.py; None: no id head
    id_history    the id head also knows what the ids did, see layers/history.py
    linear_std    normal initialisation of the MLPs' weights (released IntTower code: 1e-4); None: torch's
    """
    check_options(hidden, similarity, gate, width=width)
    objectives = len(schema.objectives)
    block = partial(FullyConnected, norm=norm, dropout=dropout, activation=activation)
    embeddings = Embeddings(schema, sizes, embedding_std)
    towers = [MLPTower(len(schema.fields(side)), schema.width, hidden, width, objectives, gate, block) for side in SIDES]
    for tower in towers:
        tower.mlp.initialise(linear_std)
    user: Tower = towers[0]
    item: Tower = towers[1]
    groups = [Group(1, 1, width or hidden[-1], objective=t, cosine=similarity == "cosine") for t in range(objectives)]
    if id_head is not None:
        user, item = with_id_head(schema, sizes, user, item, id_head, embedding_std, id_history)
        groups += id_groups(id_head, objectives)
    head = MaxSim(groups, objectives, temperature=temperature, bias=bias)
    return TwoTower(schema, embeddings, user, item, head)
