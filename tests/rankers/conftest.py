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
    "deep_crossing": {"name": "deep_crossing", **DEEP},
    "edcn": {"name": "edcn", "layers": 2},
    "edcn-add": {"name": "edcn", "layers": 2, "bridge": "add", "norm": False},
    "edcn-concat": {"name": "edcn", "layers": 2, "bridge": "concat", "temperature": 0.5},
    "edcn-attention": {"name": "edcn", "layers": 2, "bridge": "attention", "id_head": 5},
    "xdeepint": {"name": "xdeepint", "layers": 2, "subspaces": 2},
}


def small_ranker(name: str, objectives: tuple[str, ...] = ("like",), seed: int = 0) -> Ranker:
    """The ranker of that entry over `small_schema`, whose batches are `small_batch`es."""
    torch.manual_seed(seed)
    model = build.model(Model.model_validate(RANKERS[name]), small_schema(objectives), SIZES)
    assert isinstance(model, Ranker)
    return model
