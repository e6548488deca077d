"""The factorisation machine, alone and beside an MLP.

    FM       logit = w_0 + w.x + sum_k 1/2 [(sum_i v_i)^2 - sum_i v_i^2]_k       Rendle, "Factorization Machines", ICDM 2010 (eq. 1)
    DeepFM   the same + w_d . MLP([v_1; ..; v_F]), the vectors shared             Guo et al., "DeepFM", IJCAI 2017 (eq. 1-4)

Of several objectives each has its own D numbers of every field's vector (our choice): an FM for each, and one MLP that reads all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from prerank.layers import MLP, Embeddings, Linear, pairwise_products
from prerank.rankers.deep import deep
from prerank.rankers.ranker import Ranker, Wide, id_product, pair_shape
from prerank.schema import Schema


class FM(nn.Module):
    """The second-order term; the first-order one is `Wide`.  # hidden: the pairwise products [P, T * D], whose sums are the logits"""

    def __init__(self, objectives: int) -> None:
        super().__init__()
        self.objectives = objectives

    def forward(self, fields: Tensor) -> tuple[Tensor, Tensor]:
        """[P, F, T * D] -> logits [P, T], hidden [P, T * D]."""
        hidden = pairwise_products(fields)
        return hidden.unflatten(1, (self.objectives, -1)).sum(dim=2), hidden


class DeepFM(nn.Module):
    """FM's second-order term and an MLP over the same fields.  # hidden: both, [P, T * D + hidden[-1]]"""

    def __init__(self, mlp: MLP, width: int, objectives: int) -> None:
        super().__init__()
        self.fm = FM(objectives)
        self.deep = mlp
        self.output = Linear(width, objectives, bias=False)  # w_0 is the wide part's

    def forward(self, fields: Tensor) -> tuple[Tensor, Tensor]:
        """[P, F, T * D] -> logits [P, T], hidden."""
        second_order, products = self.fm(fields)
        hidden = self.deep(fields.flatten(1))
        return second_order + self.output(hidden), torch.cat([products, hidden], dim=1)


def fm(schema: Schema, sizes: Mapping[str, int], *, id_head: int | None = None, id_history: bool = False,
       embedding_std: float = 0.05) -> Ranker:  # fmt: skip
    """Factorisation machine of order 2; see the module's first lines. Its vectors' width is the schema's.

    id_head         width of an id head beside it (`IdProduct`); None: no id head
    id_history      the id head also knows what the ids did, see layers/history.py
    embedding_std   of the vectors; weights start at 0
    """
    embeddings = Embeddings(_one_width_an_objective(schema), sizes, embedding_std)
    network = FM(len(schema.objectives))
    return Ranker(embeddings, network, Wide(schema, sizes), id_product(schema, sizes, id_head, embedding_std, id_history))


def deepfm(
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
    """DeepFM; see the module's first lines, and `deep` for the layers' options.

    id_head      width of an id head beside the network (`IdProduct`); None: no id head
    id_history   the id head also knows what the ids did, see layers/history.py
    """
    objectives = len(schema.objectives)
    wider = _one_width_an_objective(schema)
    fields, width = pair_shape(wider)
    mlp = deep(fields * width, hidden, norm=norm, dropout=dropout, activation=activation, linear_std=linear_std)
    network = DeepFM(mlp, hidden[-1], objectives)
    embeddings = Embeddings(wider, sizes, embedding_std)
    return Ranker(embeddings, network, Wide(schema, sizes), id_product(schema, sizes, id_head, embedding_std, id_history))


def _one_width_an_objective(schema: Schema) -> Schema:
    """The schema with fields of T * D numbers."""
    return schema.model_copy(update={"width": len(schema.objectives) * schema.width})
