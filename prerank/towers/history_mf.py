"""Matrix factorisation that also knows what each id did and what it is like: one inner product, both towers without layers.

    user = p_u + sum of its features' vectors + |R(u)|^-1/2 sum over (i, level) in R(u) of Y[i, level]
    item = q_i + sum of its features' vectors + |R(i)|^-1/2 sum over (u, level) in R(i) of X[u, level]
    logit = <user, item> + b_u + b_i + c

Koren, "Factorization Meets the Neighborhood", KDD 2008 (SVD++, eq. 15) on both sides; what is ours is said in layers/history.py.
Its parts want different rates and decays: see configs/ml1m/honest-history-mf.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from prerank.batch import Representation
from prerank.layers import Embeddings, IdTable, id_tables
from prerank.schema import Schema
from prerank.towers.heads import MaxSim
from prerank.towers.mf import id_groups
from prerank.towers.two_tower import TwoTower


class FactorTower(nn.Module):
    """An id's vector, its history's and its features', summed.  # T x [rows, 1, K], bias [rows, T]"""

    def __init__(self, ids: IdTable, objectives: int, fields: int) -> None:
        super().__init__()
        self.ids = ids
        self.objectives = objectives
        self.needs_fields = fields > 0

    def forward(self, fields: Tensor | None, ids: Tensor) -> Representation:
        vectors, bias = self.ids(ids)  # [rows, T*K], [rows, T]
        if fields is not None:
            vectors = vectors + fields.sum(dim=1)
        return Representation(tuple(v.unsqueeze(1) for v in vectors.chunk(self.objectives, dim=1)), bias)


def history_mf(
    schema: Schema, sizes: Mapping[str, int], *, width: int = 128, history: bool = True, side: bool = True, std: float = 0.05,
    side_std: float = 0.01,
) -> TwoTower:
    """Matrix factorisation with histories and features; see the module's first lines.

    width      K of every vector
    history    what the ids did
    side       what they are like: every feature but the ids
    std        of the id vectors' initialisation; side_std of the features'
    """
    objectives = len(schema.objectives)
    ids = (schema.user_id, schema.item_id)
    features = [f.model_copy(update={"width": None, "field": side and f.field and f.name not in ids}) for f in schema.features]
    narrow = schema.model_copy(update={"features": tuple(features), "width": objectives * width})
    fields = len(narrow.fields("user")), len(narrow.fields("item"))
    tables = id_tables(schema, sizes, width, std, history)
    user, item = (FactorTower(table, objectives, n) for table, n in zip(tables, fields, strict=True))
    embeddings = Embeddings(narrow, sizes, side_std) if any(fields) else None
    return TwoTower(schema, embeddings, user, item, MaxSim(id_groups(width, objectives), objectives))
