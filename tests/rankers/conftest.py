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
}


def small_ranker(name: str, objectives: tuple[str, ...] = ("like",), seed: int = 0) -> Ranker:
    """The ranker of that entry over `small_schema`, whose batches are `small_batch`es."""
    torch.manual_seed(seed)
    model = build.model(Model.model_validate(RANKERS[name]), small_schema(objectives), SIZES)
    assert isinstance(model, Ranker)
    return model
