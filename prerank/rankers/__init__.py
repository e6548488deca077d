"""Ranking models: teachers, and what pre-rankers are measured against. A recipe is (schema, sizes, options) -> Ranker."""

from collections.abc import Callable

from prerank.rankers.deep import deep
from prerank.rankers.linear import lr
from prerank.rankers.mlp import mlp
from prerank.rankers.ranker import IdProduct, Network, Ranker, Wide, id_product, pair_shape

RANKERS: dict[str, Callable[..., Ranker]] = {
    "lr": lr,
    "mlp": mlp,
}

__all__ = ["RANKERS", "IdProduct", "Network", "Ranker", "Wide", "deep", "id_product", "lr", "mlp", "pair_shape"]
