"""xDeepInt: a polynomial of the fields, one degree a layer, and no activation anywhere.

    X_0 [F h, D / h]: every field cut into h sub-spaces, each a row of its own
    X_l = X_{l-1} * (W_l X_0) + X_{l-1}          W_l [F h, F h], * entry by entry
    logit = sum_d (w X_L)_d + b                  w [1, F h]

Yan and Li, "xDeepInt: a hybrid architecture for modeling the vector-wise and bit-wise feature interactions", DLP-KDD 2020
(the polynomial interaction network, and sub-space crossing). With h = 1 fields interact as vectors; with more, entries of different
sub-spaces meet too, up to h = D, where every bit is a row. X_L holds the products of all degrees up to L + 1. `hidden` is that map,
flattened; that the columns d share w is our reading of the output layer. The paper's G-FTRL, which prunes rows of W_l, is not part
of it; dropout of the X_0 that W_l reads is.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from prerank.layers import Embeddings, Linear
from prerank.layers.dropout import Dropout
from prerank.rankers.ranker import Ranker, id_product, pair_shape
from prerank.schema import Schema


class XDeepIntNetwork(nn.Module):
    """See the module's first lines; maps are held transposed, [P, D / h, F h], so that a layer is a Linear on the last axis."""

    def __init__(self, fields: int, objectives: int, layers: int, subspaces: int, dropout: float) -> None:
        super().__init__()
        rows = fields * subspaces
        self.subspaces = subspaces
        self.layers = nn.ModuleList(Linear(rows, rows, bias=False) for _ in range(layers))
        self.dropout: nn.Module = Dropout(dropout) if dropout else nn.Identity()
        self.output = Linear(rows, objectives)

    def forward(self, fields: Tensor) -> tuple[Tensor, Tensor]:
        """[P, F, D] -> logits [P, T], hidden [P, F D]."""
        first = fields.unflatten(2, (self.subspaces, -1)).permute(0, 3, 1, 2).flatten(2)  # [P, D/h, F h]
        x = first
        for layer in self.layers:
            x = x * layer(self.dropout(first)) + x
        return self.output(x.sum(dim=1)), x.flatten(1)


def xdeepint(
    schema: Schema,
    sizes: Mapping[str, int],
    *,
    layers: int = 3,
    subspaces: int = 4,
    dropout: float = 0.0,
    id_head: int | None = None,
    id_history: bool = False,
    embedding_std: float = 0.05,
) -> Ranker:
    """xDeepInt; see the module's first lines.

    layers      L; X_L has degree L + 1
    subspaces   h; must divide the field width D
    dropout     share of X_0's entries that training hides from W_l
    id_head     width of an id head beside the network (`IdProduct`); None: no id head
    id_history  the id head also knows what the ids did, see layers/history.py
    """
    fields, width = pair_shape(schema)
    if layers < 1:
        raise ValueError(f"layers: must be at least 1; got {layers}")
    if subspaces < 1 or width % subspaces:
        raise ValueError(f"subspaces: must divide the field width {width}; got {subspaces}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout: must be at least 0 and below 1; got {dropout}")
    network = XDeepIntNetwork(fields, len(schema.objectives), layers, subspaces, dropout)
    return Ranker(Embeddings(schema, sizes, embedding_std), network, product=id_product(schema, sizes, id_head, embedding_std, id_history))
