"""DAT, dual augmented two-tower: every id holds a vector that learns to be the other side's, and the tower reads it.

    u = MLP([x_u ; a_u])    v = MLP([x_v ; a_v])    logit = t <u, v> / (|u| |v|) + b
    where y = 1:   L = .5 ||a_u - sg(v)||^2 + .5 ||a_v - sg(u)||^2         losses/mimic.py, term `mimic`
    and            sum over categories of ||cov(major) - cov(category)||^2   losses/alignment.py, term `category_alignment`

Yu, Wang, Feng, Xue, "A Dual Augmented Two-tower Model for Online Large-scale Recommendation", DLP-KDD 2021 (adaptive-mimic
mechanism and category alignment loss; no eq. numbers are cited, the text was read second-hand). Both losses are part of the
model: a config without them trains towers that read one more id vector. Our choices: a is as wide as the other side's vectors
and joins after the gate, which weighs equal fields; u and v are compared with a learned temperature and bias, as in DSSM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from torch import Tensor, nn

from prerank.batch import Group, Representation, Tower
from prerank.layers import Embeddings, FullyConnected, IdVectors
from prerank.schema import Schema
from prerank.towers.dssm import SIDES, MLPTower, check_options
from prerank.towers.heads import MaxSim
from prerank.towers.mf import id_groups, with_id_head
from prerank.towers.two_tower import TwoTower


class AugmentedTower(nn.Module):
    """An MLP tower that also reads its id's guess of the other side.  # T x [rows, 1, K], guess [rows, T*K]"""

    needs_fields = True
    guesses = True

    def __init__(self, inner: MLPTower, ids: IdVectors) -> None:
        super().__init__()
        self.inner = inner
        self.ids = ids

    def forward(self, fields: Tensor | None, ids: Tensor) -> Representation:
        assert fields is not None
        guess = self.ids(ids)  # a_u, a_v
        return Representation(self.inner.joined(fields, guess).groups, guess=guess)


def dat(
    schema: Schema,
    sizes: Mapping[str, int],
    *,
    hidden: Sequence[int] = (300, 300, 128),
    width: int = 64,
    similarity: str = "cosine",
    temperature: str = "learnable",
    bias: bool = True,
    norm: bool = True,
    dropout: float = 0.0,
    activation: str = "relu",
    gate: str | None = None,
    id_head: int | None = None,
    id_history: bool = False,
    embedding_std: float = 0.05,
    linear_std: float | None = None,
) -> TwoTower:
    """DAT; see the module's first lines. Its losses are terms of the objective: `mimic` and `category_alignment`.

    hidden        widths of the MLP's layers, both sides
    width         K of the towers' vectors, and so of the augmented vectors
    similarity    'cosine' or 'dot'
    temperature   'learnable' scales the similarity, or 'none'
    id_head       width of an id head beside the MLP, see towers/mf.py; None: no id head
    id_history    the id head also knows what the ids did, see layers/history.py
    linear_std    normal initialisation of the MLPs' weights; None: torch's
    """
    check_options(hidden, similarity, gate, width=width)
    objectives = len(schema.objectives)
    block = partial(FullyConnected, norm=norm, dropout=dropout, activation=activation)
    embeddings = Embeddings(schema, sizes, embedding_std)
    towers: list[Tower] = []
    for side, name in zip(SIDES, (schema.user_id, schema.item_id), strict=True):
        fields, told, vocabulary = len(schema.fields(side)), objectives * width, schema.vocabulary_of(schema[name])
        inner = MLPTower(fields, schema.width, hidden, width, objectives, gate, block, extra=told)
        inner.mlp.initialise(linear_std)
        towers.append(AugmentedTower(inner, IdVectors(sizes[vocabulary], vocabulary, told, embedding_std)))
    user, item = towers
    groups = [Group(1, 1, width, objective=t, cosine=similarity == "cosine") for t in range(objectives)]
    if id_head is not None:
        user, item = with_id_head(schema, sizes, user, item, id_head, embedding_std, id_history)
        groups += id_groups(id_head, objectives)
    return TwoTower(schema, embeddings, user, item, MaxSim(groups, objectives, temperature=temperature, bias=bias))
