"""AutoInt: self-attention over the fields of the pair learns which of them interact.

    e^{l+1}_m = Interacting(e^l)_m (layers/attention.py);   logit = w . [e^L_1; ..; e^L_F] + b

Song et al., "AutoInt: Automatic Feature Interaction Learning via Self-Attentive Neural Networks", CIKM 2019 (eq. 5-9).
With `hidden` it is the paper's AutoInt+ (section 5.2): an MLP over the same fields, read by the same linear layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from prerank.layers import MLP, Embeddings, Interacting, Linear
from prerank.rankers.deep import deep
from prerank.rankers.ranker import Ranker, id_product, pair_shape
from prerank.schema import Schema


class AutoInt(nn.Module):
    """Interacting layers, beside them an MLP or None, and the linear layer over both.  # width: of what that layer reads"""

    def __init__(self, layers: Sequence[Interacting], mlp: MLP | None, width: int, objectives: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.deep = mlp
        self.output = Linear(width, objectives)

    def forward(self, fields: Tensor) -> tuple[Tensor, Tensor]:
        """[P, F, D] -> logits [P, T], hidden [P, F * heads * head_width (+ hidden[-1])]."""
        e = fields
        for layer in self.layers:
            e = layer(e)
        hidden = e.flatten(1)
        if self.deep is not None:
            hidden = torch.cat([hidden, self.deep(fields.flatten(1))], dim=1)
        return self.output(hidden), hidden


def autoint(
    schema: Schema,
    sizes: Mapping[str, int],
    *,
    layers: int = 3,
    heads: int = 2,
    head_width: int = 32,
    residual: bool = True,
    hidden: Sequence[int] = (),
    norm: bool = True,
    dropout: float = 0.0,
    activation: str = "relu",
    id_head: int | None = None,
    id_history: bool = False,
    embedding_std: float = 0.05,
    linear_std: float | None = None,
) -> Ranker:
    """AutoInt; see the module's first lines, and `deep` for the MLP's options.

    layers       number of interacting layers
    heads        of a layer's attention, each of head_width numbers
    residual     whether a layer adds a projection of its input
    hidden       widths of AutoInt+'s MLP; empty: no MLP
    id_head      width of an id head beside the network (`IdProduct`); None: no id head
    id_history   the id head also knows what the ids did, see layers/history.py
    """
    if layers < 1:
        raise ValueError(f"layers: must be at least 1; got {layers}")
    fields, width = pair_shape(schema)
    inner = heads * head_width
    interacting = [Interacting(width if n == 0 else inner, heads, head_width, residual) for n in range(layers)]
    mlp, read = None, fields * inner
    if hidden:
        mlp = deep(fields * width, hidden, norm=norm, dropout=dropout, activation=activation, linear_std=linear_std)
        read += hidden[-1]
    network = AutoInt(interacting, mlp, read, len(schema.objectives))
    return Ranker(Embeddings(schema, sizes, embedding_std), network, product=id_product(schema, sizes, id_head, embedding_std, id_history))
