"""COLD: a ranker made small enough for pre-ranking, by leaving out the fields that its gate finds weak.

    s = sigmoid(W [e_1; ..; e_m] + b),   v_i = s_i e_i,   logit = w . MLP([v_1; ..; v_m]) + b

Wang et al., "COLD: Towards the Next Generation of Pre-Ranking System", DLP-KDD 2020 (the SE block). Fields are those of user and
item, and crosses of the two. The paper takes the strongest fields by s under a budget of computing power; here
`prune` (prerank/pruning.py, `prerank prune`) does it, by the mean of s over validation rows, and what it keeps is the option `keep`.
A cross is the product of two field vectors (our choice: the paper's crosses are features of the log, which any feature may be).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prerank.layers import Embeddings
from prerank.layers.selection import SEGate
from prerank.rankers.deep import deep
from prerank.rankers.ranker import Ranker, id_product
from prerank.rankers.selection import SelectingNetwork, select
from prerank.schema import Schema


def cold(
    schema: Schema,
    sizes: Mapping[str, int],
    *,
    hidden: Sequence[int] = (300, 300, 128),
    keep: Sequence[str] | None = None,
    cross: Sequence[Sequence[str]] = (),
    norm: bool = True,
    dropout: float = 0.0,
    activation: str = "relu",
    id_head: int | None = None,
    id_history: bool = False,
    embedding_std: float = 0.05,
    linear_std: float | None = None,
) -> Ranker:
    """COLD; see the module's first lines, and `deep` for the layers' options.

    keep      names of the fields that are left ('user_field*item_field' for a cross); None: all
    cross     pairs [user field, item field] whose product is a field of its own
    id_head   width of an id head beside the network (`IdProduct`); None: no id head
    id_history    the id head also knows what the ids did, see layers/history.py
    """
    selection = select(schema, keep, cross)
    fields, width = len(selection.names), schema.width
    layers = deep(fields * width, hidden, norm=norm, dropout=dropout, activation=activation, linear_std=linear_std)
    network = SelectingNetwork(selection, SEGate(fields, width), layers, hidden[-1], len(schema.objectives))
    embeddings = Embeddings(selection.schema, sizes, embedding_std)
    return Ranker(embeddings, network, product=id_product(schema, sizes, id_head, embedding_std, id_history))
