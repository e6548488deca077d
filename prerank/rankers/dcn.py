"""Deep & Cross networks: cross layers make products of features of a bounded degree, an MLP everything else.

    DCN      logit = w . [cross(x); MLP(x)] + b        Wang et al., "Deep & Cross Network for Ad Click Predictions", ADKDD 2017 (eq. 1-5)
    DCN-V2   parallel, as above, or stacked:           Wang et al., "DCN V2: Improved Deep & Cross Network and Practical Lessons
             logit = w . MLP(cross(x)) + b             for Web-scale Learning to Rank Systems", WWW 2021 (eq. 1-5, figure 1)

The layers are those of layers/crossing.py; x is all fields of the pair side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from prerank.layers import MLP, Cross, CrossMatrix, CrossMixture, CrossVector, Embeddings, Linear
from prerank.rankers.deep import deep
from prerank.rankers.ranker import Ranker, id_product, pair_shape
from prerank.schema import Schema

STRUCTURES = ("parallel", "stacked")


class CrossDeep(nn.Module):
    """Cross layers and an MLP, side by side or one on the other.

    width        of the flattened fields
    deep_width   of the MLP's output
    """

    def __init__(self, cross: Cross, mlp: MLP, width: int, deep_width: int, objectives: int, stacked: bool = False) -> None:
        super().__init__()
        self.stacked = stacked
        self.cross = cross
        self.deep = mlp
        self.output = Linear(deep_width if stacked else width + deep_width, objectives)

    def forward(self, fields: Tensor) -> tuple[Tensor, Tensor]:
        """[P, F, D] -> logits [P, T], hidden: the MLP's output, parallel with the cross layers' before it."""
        x = fields.flatten(1)
        crossed = self.cross(x)
        hidden = self.deep(crossed) if self.stacked else torch.cat([crossed, self.deep(x)], dim=1)
        return self.output(hidden), hidden


def dcn(
    schema: Schema,
    sizes: Mapping[str, int],
    *,
    layers: int = 3,
    hidden: Sequence[int] = (300, 300, 128),
    norm: bool = True,
    dropout: float = 0.0,
    activation: str = "relu",
    id_head: int | None = None,
    id_history: bool = False,
    embedding_std: float = 0.05,
    linear_std: float | None = None,
) -> Ranker:
    """DCN; see the module's first lines, and `deep` for the MLP's options.

    layers       number of cross layers
    id_head      width of an id head beside the network (`IdProduct`); None: no id head
    id_history   the id head also knows what the ids did, see layers/history.py
    """
    fields, field_width = pair_shape(schema)
    width = fields * field_width
    cross = Cross(layers, partial(CrossVector, width))
    mlp = deep(width, hidden, norm=norm, dropout=dropout, activation=activation, linear_std=linear_std)
    network = CrossDeep(cross, mlp, width, hidden[-1], len(schema.objectives))
    return Ranker(Embeddings(schema, sizes, embedding_std), network, product=id_product(schema, sizes, id_head, embedding_std, id_history))


def dcnv2(
    schema: Schema,
    sizes: Mapping[str, int],
    *,
    layers: int = 3,
    structure: str = "parallel",
    low_rank: int | None = None,
    experts: int = 1,
    hidden: Sequence[int] = (300, 300, 128),
    norm: bool = True,
    dropout: float = 0.0,
    activation: str = "relu",
    id_head: int | None = None,
    id_history: bool = False,
    embedding_std: float = 0.05,
    linear_std: float | None = None,
) -> Ranker:
    """DCN-V2; see the module's first lines, and `deep` for the MLP's options.

    layers       number of cross layers
    structure    'parallel' or 'stacked': the MLP beside the cross layers, or on them
    low_rank     rank of the cross layers' matrices (the paper: a quarter of the width does); None: full
    experts      low-rank matrices a layer, mixed by a gate
    id_head      width of an id head beside the network (`IdProduct`); None: no id head
    id_history   the id head also knows what the ids did, see layers/history.py
    """
    if structure not in STRUCTURES:
        raise ValueError(f"structure: must be one of {', '.join(STRUCTURES)}; got '{structure}'")
    if low_rank is None and experts != 1:
        raise ValueError(f"experts: a mixture needs low_rank; got experts {experts} without it")
    for name, value in (("low_rank", low_rank), ("experts", experts)):
        if value is not None and value < 1:
            raise ValueError(f"{name}: must be at least 1; got {value}")
    fields, field_width = pair_shape(schema)
    width = fields * field_width
    make: Callable[[], nn.Module] = (
        partial(CrossMatrix, width) if low_rank is None else partial(CrossMixture, width, low_rank, experts)
    )  # fmt: skip
    mlp = deep(width, hidden, norm=norm, dropout=dropout, activation=activation, linear_std=linear_std)
    network = CrossDeep(Cross(layers, make), mlp, width, hidden[-1], len(schema.objectives), structure == "stacked")
    return Ranker(Embeddings(schema, sizes, embedding_std), network, product=id_product(schema, sizes, id_head, embedding_std, id_history))
