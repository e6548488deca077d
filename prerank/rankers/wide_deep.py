"""Wide & Deep: what is remembered of each value beside what generalises over all of them.

    logit = w_wide . x + b + w_deep . MLP([e_1; ..; e_F])

Cheng et al., "Wide & Deep Learning for Recommender Systems", DLRS 2016 (eq. 3). The paper's hand-made cross-products of
the wide part are features like any other: a schema that has such a column gives it its weight. The paper trains
the wide part by FTRL and the deep one by AdaGrad; here one optimiser has both, with rates by `training.optimizer.groups`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prerank.layers import Embeddings
from prerank.rankers.deep import deep
from prerank.rankers.mlp import MLPNetwork
from prerank.rankers.ranker import Ranker, Wide, id_product, pair_shape
from prerank.schema import Schema


def wide_deep(
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
    """Wide & Deep; see the module's first lines, and `deep` for the layers' options.

    id_head      width of an id head beside the network (`IdProduct`); None: no id head
    id_history   the id head also knows what the ids did, see layers/history.py
    """
    embeddings = Embeddings(schema, sizes, embedding_std)
    fields, width = pair_shape(schema)
    mlp = deep(fields * width, hidden, norm=norm, dropout=dropout, activation=activation, linear_std=linear_std)
    network = MLPNetwork(mlp, hidden[-1], len(schema.objectives), bias=False)
    return Ranker(embeddings, network, Wide(schema, sizes), id_product(schema, sizes, id_head, embedding_std, id_history))
