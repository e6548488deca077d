"""Deep Crossing: residual units over the stacked fields, the deep ranker before interactions had names.

    x^0 = [e_1; ..; e_F];   x^l = relu(x^{l-1} + W_1 relu(W_0 x^{l-1} + b_0) + b_1);   logit = w . x^L + b

Shan et al., "Deep Crossing: Web-Scale Modeling without Manually Crafted Combinatorial Features", KDD 2016 (the stacking and the
residual layers). A unit leaves the width as it is, so that `hidden` are the widths inside the units. BatchNorm and dropout inside a
unit are ours, and so is that fields are stacked as they are, without the paper's ReLU on each embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from torch import Tensor, nn

from prerank.layers import Block, Embeddings, FullyConnected, Linear
from prerank.layers.mlp import ACTIVATIONS
from prerank.rankers.ranker import Ranker, id_product, pair_shape
from prerank.schema import Schema


class ResidualUnit(nn.Module):
    """x -> f(x + W_1 block(x) + b_1): two layers, and the input added back before the second activation.  # [P, n] -> [P, n]"""

    def __init__(self, inputs: int, width: int, block: Block, activation: str) -> None:
        super().__init__()
        self.inner = block(inputs, width)
        self.outer = Linear(width, inputs)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """[P, n] -> the same."""
        summed: Tensor = self.activation(x + self.outer(self.inner(x)))
        return summed


class DeepCrossingNetwork(nn.Module):
    """Residual units, one a width of `hidden`, and the linear layer that reads the last."""

    def __init__(self, inputs: int, hidden: Sequence[int], objectives: int, block: Block, activation: str) -> None:
        super().__init__()
        self.units = nn.Sequential(*(ResidualUnit(inputs, width, block, activation) for width in hidden))
        self.output = Linear(inputs, objectives)

    def forward(self, fields: Tensor) -> tuple[Tensor, Tensor]:
        """[P, F, D] -> logits [P, T], hidden [P, F D]."""
        hidden = self.units(fields.flatten(1))
        return self.output(hidden), hidden


def deep_crossing(
    schema: Schema,
    sizes: Mapping[str, int],
    *,
    hidden: Sequence[int] = (512, 512, 256, 128, 64),
    norm: bool = True,
    dropout: float = 0.0,
    activation: str = "relu",
    id_head: int | None = None,
    id_history: bool = False,
    embedding_std: float = 0.05,
) -> Ranker:
    """Deep Crossing; see the module's first lines.

    hidden       widths inside the units, one unit each; the default is the paper's five
    norm         BatchNorm inside a unit, before its first activation
    dropout      share of the units' inner outputs that training drops
    activation   of both layers of a unit
    id_head      width of an id head beside the network (`IdProduct`); None: no id head
    id_history   the id head also knows what the ids did, see layers/history.py
    """
    if not hidden:
        raise ValueError("hidden: must name the width of at least one unit; got none")
    if any(n < 1 for n in hidden):
        raise ValueError(f"hidden: widths must be at least 1; got {list(hidden)}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout: must be at least 0 and below 1; got {dropout}")
    block = partial(FullyConnected, norm=norm, dropout=dropout, activation=activation)
    fields, width = pair_shape(schema)
    network = DeepCrossingNetwork(fields * width, hidden, len(schema.objectives), block, activation)
    return Ranker(Embeddings(schema, sizes, embedding_std), network, product=id_product(schema, sizes, id_head, embedding_std, id_history))
