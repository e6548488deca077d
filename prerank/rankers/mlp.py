"""A single-tower MLP: all fields of the pair side by side, fully connected layers, one linear layer.

    logit = w . MLP([e_1; ..; e_F]) + b

It is the deep part of Cheng et al., "Wide & Deep Learning for Recommender Systems", DLRS 2016 (eq. 2), alone, and the
plainest network that may look at user and item together: every ranker with a named interaction should pass it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from prerank.layers import MLP, Embeddings, Linear
from prerank.rankers.deep import deep
from prerank.rankers.ranker import Ranker, id_product, pair_shape
from prerank.schema import Schema


class MLPNetwork(nn.Module):
    """MLP over the flattened fields, and the linear layer that reads its `width` numbers (bias=False beside a wide part: that has one)."""

    def __init__(self, mlp: MLP, width: int, objectives: int, bias: bool = True) -> None:
        super().__init__()
        self.deep = mlp
        self.output = Linear(width, objectives, bias=bias)

    def forward(self, fields: Tensor) -> tuple[Tensor, Tensor]:
        """[P, F, D] -> logits [P, T], hidden [P, hidden[-1]]."""
        hidden = self.deep(fields.flatten(1))
        return self.output(hidden), hidden


def mlp(
    schema: Schema,
    sizes: Mapping[str, int],
    *,
    hidden: Sequence[int] = (300, 300, 128),
    norm: bool = True,
    dropout: float = 0.0,
    activation: str = "relu",
    id_head: int | None = None,
    id_history: bool = False,
    embedding_std: float = 0.05,
    linear_std: float | None = None,
) -> Ranker:
    """Single-tower MLP; see the module's first lines, and `deep` for the layers' options.

    id_head      width of an id head beside the network (`IdProduct`); None: no id head
    id_history   the id head also knows what the ids did, see layers/history.py
    """
    embeddings = Embeddings(schema, sizes, embedding_std)
    fields, width = pair_shape(schema)
    layers = deep(fields * width, hidden, norm=norm, dropout=dropout, activation=activation, linear_std=linear_std)
    network = MLPNetwork(layers, hidden[-1], len(schema.objectives))
    return Ranker(embeddings, network, product=id_product(schema, sizes, id_head, embedding_std, id_history))
