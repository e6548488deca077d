"""FSCD: a ranker for pre-ranking that learns which fields it can do without, dear ones first.

    z_j ~ Bernoulli(delta_j), relaxed (layers/selection.py);   v_j = z_j e_j;   logit = w . MLP([v_1; ..; v_m]) + b
    prior   z_j ~ Bernoulli(theta_j), theta_j = 1 - sigmoid(c_j):   -log p(z_j) = c_j z_j + const
    c_j     = g_1 o_j + g_2 w_j + g_3 n_j     what a field costs: values looked up, width, keys stored

Ma et al., "Towards a Better Tradeoff between Effectiveness and Efficiency in Pre-Ranking: A Learnable Feature Selection based
Approach", SIGIR 2021 (feature selection by complexity and variational dropout). The prior's part of the loss, sum_j c_j delta_j, is the
term `complexity` (losses/complexity.py), which the objective must name. theta's form is our reading of the paper. Our choices: o_j, w_j
and the logarithm of n_j are divided by their largest over the fields, delta takes the place of z in the prior, and draws are a row's
own. After training `prune` keeps the fields with the largest delta; with `keep` the model has those alone, and no gate. The paper trains
such a model on from the large one's weights; `prune` gives it those, cut, while `prerank train` starts anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from prerank.batch import Batch, Output
from prerank.layers import Embeddings
from prerank.layers.selection import ConcreteGate
from prerank.rankers.deep import deep
from prerank.rankers.ranker import IdProduct, Ranker, id_product
from prerank.rankers.selection import SelectingNetwork, select
from prerank.schema import Feature, Schema


class SelectingRanker(Ranker):
    """A ranker that says what its choice of fields costs, in expectation: extras['complexity'] = sum_j c_j delta_j."""

    costs: Tensor
    chooses = True  # what the term `complexity` asks for

    def __init__(self, embeddings: Embeddings, network: SelectingNetwork, costs: Tensor, product: IdProduct | None) -> None:
        super().__init__(embeddings, network, product=product)
        self.register_buffer("costs", costs, persistent=False)

    def forward(self, batch: Batch) -> Output:
        """As `Ranker`, with extras."""
        assert isinstance(self.network, SelectingNetwork)
        assert isinstance(self.network.gate, ConcreteGate)
        complexity = self.costs @ self.network.gate.probabilities()
        return replace(super().forward(batch), extras={"complexity": complexity})


def fscd(
    schema: Schema,
    sizes: Mapping[str, int],
    *,
    hidden: Sequence[int] = (300, 300, 128),
    keep: Sequence[str] | None = None,
    complexity: Sequence[float] = (1.0, 1.0, 1.0),
    temperature: float = 0.1,
    initial: float = 0.9,
    norm: bool = True,
    dropout: float = 0.0,
    activation: str = "relu",
    id_head: int | None = None,
    id_history: bool = False,
    embedding_std: float = 0.05,
    linear_std: float | None = None,
) -> Ranker:
    """FSCD; see the module's first lines, and `deep` for the layers' options.

    keep          names of the fields that are left, all of them kept for good; None: all fields, each behind its gate
    complexity    g_1, g_2, g_3: what values looked up, width and keys weigh in a field's cost
    temperature   t of the gates' relaxation; .1 is nearly binary
    initial       delta of every field at the start
    id_head       width of an id head beside the network (`IdProduct`), which no gate touches; None: no id head
    id_history    the id head also knows what the ids did, see layers/history.py
    """
    if temperature <= 0:
        raise ValueError(f"temperature: must be positive; got {temperature}")
    if not 0 < initial < 1:
        raise ValueError(f"initial: must lie between 0 and 1; got {initial}")
    if len(complexity) != 3 or min(complexity) < 0:
        raise ValueError(f"complexity: must be three weights of at least 0 (lookups, width, keys); got {list(complexity)}")
    selection = select(schema, keep)
    fields = len(selection.names)
    layers = deep(fields * schema.width, hidden, norm=norm, dropout=dropout, activation=activation, linear_std=linear_std)
    gate = ConcreteGate(fields, temperature, initial) if keep is None else None
    network = SelectingNetwork(selection, gate, layers, hidden[-1], len(schema.objectives))
    embeddings = Embeddings(selection.schema, sizes, embedding_std)
    product = id_product(schema, sizes, id_head, embedding_std, id_history)
    if gate is None:
        return Ranker(embeddings, network, product=product)
    return SelectingRanker(embeddings, network, costs(schema, sizes, complexity), product)


def costs(schema: Schema, sizes: Mapping[str, int], weights: Sequence[float]) -> Tensor:
    """c [m] of the pair's fields, user's first: the weighted sum of three measures, each at most 1."""
    fields = [*schema.fields("user"), *schema.fields("item")]
    measures = [[_lookups(f), _width(f, schema), _keys(f, schema, sizes)] for f in fields]
    table = torch.tensor(measures)  # [m, 3]
    return (table / table.amax(dim=0).clamp_min(1e-12)) @ torch.tensor(weights, dtype=table.dtype)


def _lookups(f: Feature) -> float:
    """Vectors gathered for one row."""
    return float(f.max_length if f.many else 1)


def _width(f: Feature, schema: Schema) -> float:
    """Numbers read for one value."""
    return float(schema.width_of(f) if f.embedded else f.dim or 1)


def _keys(f: Feature, schema: Schema, sizes: Mapping[str, int]) -> float:
    """Logarithm of the table's rows; a number or vector that is given has no table."""
    return math.log(sizes[schema.vocabulary_of(f)]) if f.embedded else 0.0
