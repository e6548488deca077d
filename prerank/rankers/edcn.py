"""EDCN: a cross network and a deep network side by side that talk after every layer.

    regulation  x = g^x * s,  h = g^h * s     a gate a field for each side;  g = F softmax(w / t), w and t of its own each layer
    layer       x' = x_0 (x . w) + b + x,   h' = f(W h + b)
    bridge      s' = x' * h' | x' + h' | relu(W [x'; h'] + b) | a_x x' + a_h h'
    logit       w . [x_L; h_L; s_L] + b

Chen et al., "Enhancing Explicit and Implicit Feature Interactions via Information Sharing for Parallel Deep CTR
Models", CIKM 2021 (the bridge and the regulation module). s is the flattened fields [F D] at first, and x_0 the cross side's
first regulated input. Our choices: the gates are multiplied by F, so that they start at 1 (a bare softmax shrinks every field by 1/F
at every layer); t is the setting `temperature`; attention's (a_x, a_h) = softmax of p . relu(W x' + b) and p . relu(W h' + b).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from prerank.layers import Block, Embeddings, FullyConnected, Linear
from prerank.rankers.ranker import Ranker, id_product, pair_shape
from prerank.schema import Schema


class Cross(nn.Module):
    """One layer of DCN's cross network: x_0 (x . w) + b + x.  # [P, n] -> [P, n]"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width) / math.sqrt(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, first: Tensor, x: Tensor) -> Tensor:
        """x_0 and x [P, n] -> [P, n]."""
        return first * (x @ self.weight).unsqueeze(1) + self.bias + x


class Regulation(nn.Module):
    """What each side sees of the shared fields: F softmax(w / t) on them, of its own.  # [P, F D] -> two of [P, F D]"""

    def __init__(self, fields: int, temperature: float) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(2, fields))
        self.temperature = temperature

    def forward(self, shared: Tensor) -> tuple[Tensor, Tensor]:
        """For the cross side and for the deep side."""
        fields = self.weights.shape[1]
        gates = fields * torch.softmax(self.weights / self.temperature, dim=1)  # [2, F]
        by_field = shared.unflatten(1, (fields, -1))  # [P, F, D]
        cross, deep = ((by_field * gate.unsqueeze(1)).flatten(1) for gate in gates)
        return cross, deep


class Hadamard(nn.Module):
    """x * h."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """[P, n], [P, n] -> [P, n]."""
        return x * h


class Add(nn.Module):
    """x + h."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """[P, n], [P, n] -> [P, n]."""
        return x + h


class Concat(nn.Module):
    """relu(W [x; h] + b)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.join = Linear(2 * width, width)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """[P, n], [P, n] -> [P, n]."""
        return torch.relu(self.join(torch.cat([x, h], dim=1)))


class Attention(nn.Module):
    """a_x x + a_h h, (a_x, a_h) = softmax of p . relu(W . + b) of each; one W, b, p for both sides."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.key = Linear(width, width)
        self.query = Linear(width, 1, bias=False)  # softmax forgets a bias

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """[P, n], [P, n] -> [P, n]."""
        scores = torch.cat([self.query(torch.relu(self.key(side))) for side in (x, h)], dim=1)  # [P, 2]
        of_x, of_h = torch.softmax(scores, dim=1).split(1, dim=1)
        return of_x * x + of_h * h


BRIDGES: dict[str, type[nn.Module]] = {"hadamard": Hadamard, "add": Add, "concat": Concat, "attention": Attention}


class EDCNNetwork(nn.Module):
    """See the module's first lines; every layer is as wide as the fields."""

    def __init__(self, fields: int, field_width: int, objectives: int, layers: int, bridge: str, temperature: float, block: Block) -> None:
        super().__init__()
        width = fields * field_width
        self.regulations = nn.ModuleList(Regulation(fields, temperature) for _ in range(layers))
        self.cross = nn.ModuleList(Cross(width) for _ in range(layers))
        self.deep = nn.ModuleList(block(width, width) for _ in range(layers))
        self.bridges = nn.ModuleList(BRIDGES[bridge](width) for _ in range(layers))
        self.output = Linear(3 * width, objectives)

    def forward(self, fields: Tensor) -> tuple[Tensor, Tensor]:
        """[P, F, D] -> logits [P, T], hidden [P, 3 F D]."""
        shared = fields.flatten(1)
        first = None
        for regulation, cross, deep, bridge in zip(self.regulations, self.cross, self.deep, self.bridges, strict=True):
            x, h = regulation(shared)
            first = x if first is None else first
            x, h = cross(first, x), deep(h)
            shared = bridge(x, h)
        hidden = torch.cat([x, h, shared], dim=1)
        return self.output(hidden), hidden


def edcn(
    schema: Schema,
    sizes: Mapping[str, int],
    *,
    layers: int = 3,
    bridge: str = "hadamard",
    temperature: float = 1.0,
    norm: bool = True,
    dropout: float = 0.0,
    activation: str = "relu",
    id_head: int | None = None,
    id_history: bool = False,
    embedding_std: float = 0.05,
) -> Ranker:
    """EDCN; see the module's first lines.

    layers        of each side; all are as wide as the concatenated fields
    bridge        'hadamard', 'add', 'concat' or 'attention'
    temperature   t of the regulation gates: small ones choose fields, large ones leave them alike
    norm          BatchNorm in the deep side's layers
    dropout       share of the deep side's outputs that training drops
    id_head       width of an id head beside the network (`IdProduct`); None: no id head
    id_history    the id head also knows what the ids did, see layers/history.py
    """
    if layers < 1:
        raise ValueError(f"layers: must be at least 1; got {layers}")
    if bridge not in BRIDGES:
        raise ValueError(f"bridge: must be one of {', '.join(BRIDGES)}; got '{bridge}'")
    if temperature <= 0:
        raise ValueError(f"temperature: must be positive; got {temperature}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout: must be at least 0 and below 1; got {dropout}")
    block = partial(FullyConnected, norm=norm, dropout=dropout, activation=activation)
    network = EDCNNetwork(*pair_shape(schema), len(schema.objectives), layers, bridge, temperature, block)
    return Ranker(Embeddings(schema, sizes, embedding_std), network, product=id_product(schema, sizes, id_head, embedding_std, id_history))
