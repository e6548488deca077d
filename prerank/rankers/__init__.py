"""Ranking models: teachers, and what pre-rankers are measured against. A recipe is (schema, sizes, options) -> Ranker."""

from collections.abc import Callable

from prerank.rankers.autoint import autoint
from prerank.rankers.cold import cold
from prerank.rankers.dcn import dcn, dcnv2
from prerank.rankers.deep import deep
from prerank.rankers.deep_crossing import deep_crossing
from prerank.rankers.edcn import edcn
from prerank.rankers.factorization import deepfm, fm
from prerank.rankers.fscd import fscd
from prerank.rankers.linear import lr
from prerank.rankers.mlp import mlp
from prerank.rankers.ranker import IdProduct, Network, Ranker, Wide, id_product, pair_shape
from prerank.rankers.wide_deep import wide_deep
from prerank.rankers.xdeepint import xdeepint

RANKERS: dict[str, Callable[..., Ranker]] = {
    "lr": lr,
    "mlp": mlp,
    "fm": fm,
    "wide_deep": wide_deep,
    "deepfm": deepfm,
    "dcn": dcn,
    "dcnv2": dcnv2,
    "autoint": autoint,
    "deep_crossing": deep_crossing,
    "edcn": edcn,
    "xdeepint": xdeepint,
    "cold": cold,
    "fscd": fscd,
}

__all__ = [
    "RANKERS",
    "IdProduct",
    "Network",
    "Ranker",
    "Wide",
    "autoint",
    "cold",
    "dcn",
    "dcnv2",
    "deep",
    "deep_crossing",
    "deepfm",
    "edcn",
    "fm",
    "fscd",
    "id_product",
    "lr",
    "mlp",
    "pair_shape",
    "wide_deep",
    "xdeepint",
]
