"""The rankers that every contract check runs over: a new one needs an entry here, and one more for each form that differs."""

from __future__ import annotations

from typing import Any

import torch

from prerank import build
from prerank.config import Model
from prerank.rankers import Ranker
from tests.conftest import SIZES, small_schema

DEEP = {"hidden": [16, 12]}
RANKERS: dict[str, dict[str, Any]] = {
    "lr": {"name": "lr"},
    "lr-id-head": {"name": "lr", "id_head": 5},
    "mlp": {"name": "mlp", **DEEP},
    "mlp-id-head": {"name": "mlp", "norm": False, "activation": "tanh", "id_head": 5, **DEEP},
    "fm": {"name": "fm"},
    "wide-deep": {"name": "wide_deep", **DEEP},
    "deepfm": {"name": "deepfm", **DEEP},
    "dcn": {"name": "dcn", "layers": 2, **DEEP},
    "dcnv2": {"name": "dcnv2", "layers": 2, **DEEP},
    "dcnv2-stacked-low-rank": {"name": "dcnv2", "layers": 2, "structure": "stacked", "low_rank": 4, **DEEP},
    "dcnv2-mixture-id-head": {"name": "dcnv2", "layers": 2, "low_rank": 4, "experts": 3, "id_head": 5, **DEEP},
    "autoint": {"name": "autoint", "layers": 2, "head_width": 4},
    "autoint-plus": {"name": "autoint", "layers": 1, "heads": 1, "head_width": 6, "residual": False, "dropout": 0.1, **DEEP},
    "deep_crossing": {"name": "deep_crossing", **DEEP},
    "edcn": {"name": "edcn", "layers": 2},
    "edcn-add": {"name": "edcn", "layers": 2, "bridge": "add", "norm": False},
    "edcn-concat": {"name": "edcn", "layers": 2, "bridge": "concat", "temperature": 0.5},
    "edcn-attention": {"name": "edcn", "layers": 2, "bridge": "attention", "id_head": 5},
    "xdeepint": {"name": "xdeepint", "layers": 2, "subspaces": 2},
    "cold": {"name": "cold", "cross": [["user_id", "item_id"], ["age", "genres"]], **DEEP},
    "cold-kept": {"name": "cold", "cross": [["user_id", "genres"]], "keep": ["price", "hour", "user_id*genres"], **DEEP},
    "fscd": {"name": "fscd", **DEEP},
    "fscd-kept": {"name": "fscd", "keep": ["user_id", "history", "picture"], "id_head": 5, **DEEP},
}


def small_ranker(name: str, objectives: tuple[str, ...] = ("like",), seed: int = 0) -> Ranker:
    """The ranker of that entry over `small_schema`, whose batches are `small_batch`es."""
    torch.manual_seed(seed)
    model = build.model(Model.model_validate(RANKERS[name]), small_schema(objectives), SIZES)
    assert isinstance(model, Ranker)
    return model
