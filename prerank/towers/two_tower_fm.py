"""The factorisation machine as two towers: it is one already.

    FM(x) = w_0 + w.x + sum_{i<j} <v_i, v_j>,   the fields of a pair being the user's and the item's:
          = <S_u, S_i>  +  [w.x_u + 1/2 (|S_u|^2 - sum_{i in u} |v_i|^2)]  +  [the same of the item]  +  w_0,    S_u = sum_{i in u} v_i

So a pair of user and item meets in one inner product, and all else is a bias of its own side: the ranker `fm` and this model are the
same function (tests/towers/test_two_tower_fm.py), but here items are encoded once and an index may hold them.
Rendle, "Factorization Machines", ICDM 2010 (eq. 1, lemma 3.1); the split into towers is ours.

Beside it stand the ids' own vectors with what the ids did (`id_head`, `id_history`: Koren, KDD 2008, SVD++; see layers/history.py),
another inner product. Its parts want different rates and decays: see configs/ml1m/honest-two-tower-fm.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from prerank.batch import Group, Representation, Tower
from prerank.layers import Embeddings, pairwise_products
from prerank.schema import Schema
from prerank.towers.heads import MaxSim
from prerank.towers.mf import id_groups, with_id_head
from prerank.towers.two_tower import TwoTower


class SumTower(nn.Module):
    """The sum of a side's fields, and what they say among themselves as a bias.  # T x [rows, 1, K], bias [rows, T]

    A field holds K numbers an objective and its linear weight, T * (K + 1) in all.
    """

    needs_fields = True

    def __init__(self, objectives: int) -> None:
        super().__init__()
        self.objectives = objectives

    def forward(self, fields: Tensor | None, ids: Tensor) -> Representation:
        assert fields is not None
        of_objective = fields.unflatten(2, (self.objectives, -1))  # [rows, F, T, K + 1]
        vectors, weights = of_objective[..., :-1], of_objective[..., -1]
        total = vectors.sum(dim=1)  # [rows, T, K]
        bias = weights.sum(dim=1) + pairwise_products(vectors.transpose(1, 2)).sum(dim=2)
        return Representation(tuple(v.unsqueeze(1) for v in total.unbind(dim=1)), bias)


def two_tower_fm(
    schema: Schema, sizes: Mapping[str, int], *, width: int = 32, id_head: int | None = None, id_history: bool = False,
    std: float = 0.05, id_std: float = 0.05,
) -> TwoTower:
    """Factorisation machine with an id head; see the module's first lines.

    width        K of every field's vector
    id_head      width of the ids' own vectors beside it; None: no id head
    id_history   the id head also knows what the ids did
    std          of the fields' initialisation; id_std of the id vectors'

    Raises ValueError.
    """
    if width < 1:
        raise ValueError(f"width: must be at least 1; got {width}")
    objectives = len(schema.objectives)
    features = [f.model_copy(update={"width": None}) for f in schema.features]
    wider = schema.model_copy(update={"features": tuple(features), "width": objectives * (width + 1)})
    user: Tower = SumTower(objectives)
    item: Tower = SumTower(objectives)
    groups = [Group(1, 1, width, objective=t) for t in range(objectives)]
    if id_head is not None:
        user, item = with_id_head(schema, sizes, user, item, id_head, id_std, id_history)
        groups += id_groups(id_head, objectives)
    return TwoTower(schema, Embeddings(wider, sizes, std), user, item, MaxSim(groups, objectives))
