"""Ranking models: teachers, and what pre-rankers are measured against. A recipe is (schema, sizes, options) -> Ranker."""

from collections.abc import Callable

from prerank.rankers.deep import deep
from prerank.rankers.deep_crossing import deep_crossing
from prerank.rankers.edcn import edcn
from prerank.rankers.linear import lr
from prerank.rankers.mlp import mlp
from prerank.rankers.ranker import IdProduct, Network, Ranker, Wide, id_product, pair_shape
from prerank.rankers.xdeepint import xdeepint

RANKERS: dict[str, Callable[..., Ranker]] = {
    "lr": lr,
    "mlp": mlp,
    "deep_crossing": deep_crossing,
    "edcn": edcn,
    "xdeepint": xdeepint,
}

__all__ = [
    "RANKERS",
    "IdProduct",
    "Network",
    "Ranker",
    "Wide",
    "deep",
    "deep_crossing",
    "edcn",
    "id_product",
    "lr",
    "mlp",
    "pair_shape",
    "xdeepint",
]
