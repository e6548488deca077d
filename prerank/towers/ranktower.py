"""RankTower: gated heads on either side that read each other before they meet, pair by pair.

    e^h = MLP(X)^h * sigmoid(gMLP(stopgrad(X)))^h, gMLP: two layers, reduction r    (eq. 3-4)
    cross attention both ways, maximum similarity with a learned temperature        (5-13)  towers/cross_maxsim.py

Yan and Li, "RankTower: A Synergistic Framework for Enhancing Two-Tower Pre-Ranking Model", 2024. The towers stay apart: E_u
and E_i, and all that the attention reads of them, are made once a user and once an item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from prerank.batch import Representation, Tower
from prerank.layers import MLP, Block, Embeddings, FullyConnected, Linear
from prerank.schema import Schema
from prerank.towers.cross_maxsim import CrossMaxSim
from prerank.towers.mf import id_groups, with_id_head
from prerank.towers.two_tower import TwoTower


class GatedTower(nn.Module):
    """Eq. 3-4: fields -> MLP -> heads, each number gated by what the fields say.  # T x [rows, H, K]

    X is the flattened fields. The gate sees X without a gradient, so that it cannot bend the embeddings to its ends.
    Our choices: the gate's middle layer is r times narrower than X and ends in a ReLU; one set of heads an objective.
    """

    needs_fields = True

    def __init__(self, fields: int, field_width: int, hidden: Sequence[int], heads: int, width: int, objectives: int = 1,
                 reduction: int = 2, block: Block = FullyConnected) -> None:  # fmt: skip
        super().__init__()
        self.shape = (objectives, heads, width)
        inputs, outputs = fields * field_width, objectives * heads * width
        middle = max(1, inputs // reduction)
        self.mlp = MLP(inputs, hidden, block)
        self.heads = Linear(hidden[-1], outputs)
        self.gate = nn.Sequential(Linear(inputs, middle), nn.ReLU(), Linear(middle, outputs), nn.Sigmoid())

    def forward(self, fields: Tensor | None, ids: Tensor) -> Representation:
        assert fields is not None
        x = fields.flatten(1)
        heads = self.heads(self.mlp(x)) * self.gate(x.detach())  # [rows, T*H*K]
        return Representation(torch.unbind(heads.unflatten(1, self.shape), dim=1))


def ranktower(
    schema: Schema,
    sizes: Mapping[str, int],
    *,
    hidden: Sequence[int] = (300, 300, 128),
    heads: int = 4,
    item_heads: int | None = None,
    head_width: int = 64,
    reduction: int = 2,
    bias: bool = True,
    norm: bool = True,
    dropout: float = 0.0,
    activation: str = "relu",
    id_head: int | None = None,
    id_history: bool = False,
    embedding_std: float = 0.05,
    linear_std: float | None = None,
) -> TwoTower:
    """RankTower; see the module's first lines.

    heads, item_heads   P and Q; the paper tries 2 to 10. item_heads defaults to heads
    head_width          K, at least 2: LayerNorm runs over it
    reduction           r: how many times narrower than its input the gate's middle layer is
    bias                one learned bias an objective (ours)
    id_head             width of an id head beside the towers, see towers/mf.py; None: no id head
    id_history          the id head also knows what the ids did, see layers/history.py
    linear_std          normal initialisation of the MLPs' weights; None: torch's
    """
    sizes_of = {"heads": (heads, 1), "item_heads": (item_heads, 1), "head_width": (head_width, 2), "reduction": (reduction, 1)}
    for name, (value, least) in sizes_of.items():
        if value is not None and value < least:
            raise ValueError(f"{name}: must be at least {least}; got {value}")
    if not hidden:
        raise ValueError("hidden: must name the width of at least one layer; got none")
    objectives, item_heads = len(schema.objectives), item_heads or heads
    block = partial(FullyConnected, norm=norm, dropout=dropout, activation=activation)
    embeddings = Embeddings(schema, sizes, embedding_std)
    user_fields, item_fields = len(schema.fields("user")), len(schema.fields("item"))
    inner_user = GatedTower(user_fields, schema.width, hidden, heads, head_width, objectives, reduction, block)
    inner_item = GatedTower(item_fields, schema.width, hidden, item_heads, head_width, objectives, reduction, block)
    inner_user.mlp.initialise(linear_std)
    inner_item.mlp.initialise(linear_std)
    user: Tower = inner_user
    item: Tower = inner_item
    ids = id_groups(id_head, objectives) if id_head is not None else []
    if id_head is not None:
        user, item = with_id_head(schema, sizes, user, item, id_head, embedding_std, id_history)
    head = CrossMaxSim(heads, item_heads, head_width, objectives, bias=bias, ids=ids)
    return TwoTower(schema, embeddings, user, item, head)
