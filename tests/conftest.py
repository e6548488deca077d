"""A small schema, batches of it, and the models that every contract check runs over."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from prerank import build
from prerank.batch import Batch
from prerank.config import Model
from prerank.schema import Feature, Schema
from prerank.towers import TwoTower

# Every tower in the forms that differ in what is stored or how it is compared.
MODELS: dict[str, dict[str, Any]] = {
    "mf": {"name": "mf", "width": 8},
    "history-mf": {"name": "history_mf", "width": 8},
    "two-tower-fm": {"name": "two_tower_fm", "width": 8},
    "two-tower-fm-id-history": {"name": "two_tower_fm", "width": 8, "id_head": 5, "id_history": True},
    "inttower-id-history": {"name": "inttower", "hidden": [16, 12], "heads": 2, "head_width": 6, "id_head": 5, "id_history": True},
    "dssm": {"name": "dssm", "hidden": [16, 12], "width": 8},
    "dssm-bare-cosine": {"name": "dssm", "hidden": [16, 12], "width": None, "temperature": "none", "bias": False, "activation": "tanh"},
    "dssm-dot-id-head": {"name": "dssm", "hidden": [16, 12], "width": 8, "similarity": "dot", "temperature": "none", "id_head": 6,
                         "gate": "senet"},
    "inttower": {"name": "inttower", "hidden": [16, 12, 8], "heads": 2, "head_width": 6, "similarity": "dot", "temperature": "none"},
    "inttower-code": {"name": "inttower", "hidden": [16, 12, 8], "heads": 2, "head_width": 6, "placement": "inputs",
                      "similarity": "dot", "temperature": "none"},
    "inttower-uneven-cosine": {"name": "inttower", "hidden": [16, 12], "heads": 3, "item_heads": 2, "head_width": 6, "similarity": "cosine",
                               "temperature": "learnable", "gate": "senet", "gate_residual": False},
    "inttower-id-head": {"name": "inttower", "hidden": [16, 12], "heads": 2, "head_width": 6, "id_head": 5, "gate": None},
    "inttower-layers": {"name": "inttower", "hidden": [16, 12, 8], "heads": 2, "head_width": 6, "levels": [1, 2]},
    "inttower-fc": {"name": "inttower", "hidden": [16, 12], "heads": 1, "head_width": 6, "interaction": "fc", "placement": "inputs"},
    "ranktower": {"name": "ranktower", "hidden": [16, 12], "heads": 3, "item_heads": 2, "head_width": 6},
    "ranktower-id-head": {"name": "ranktower", "hidden": [16, 12], "heads": 2, "head_width": 6, "id_head": 5, "reduction": 4},
    "dat": {"name": "dat", "hidden": [16, 12], "width": 8},
    "dat-dot-id-head": {"name": "dat", "hidden": [16, 12], "width": 8, "similarity": "dot", "temperature": "none", "id_head": 6,
                        "gate": "light_se"},
    "ihm-dat": {"name": "ihm_dat", "hidden": [16, 12], "width": 8},
    "rcg": {"name": "rcg", "hidden": [16, 12], "width": 8, "feed_forward": 12},
    "rcg-id-head": {"name": "rcg", "hidden": [16, 12], "width": 8, "layers": 1, "attention_heads": 3, "id_head": 5, "similarity": "dot"},
    "hit": {"name": "hit", "hidden": [16, 12], "generator": [10], "width": 6},
    "hit-dot-id-head": {"name": "hit", "hidden": [16, 12], "generator": [], "heads": 1, "width": 6, "similarity": "dot", "id_head": 5,
                        "gate": "senet"},
    "dssm-cosine-id-head": {"name": "dssm", "hidden": [16, 12], "width": 8, "id_head": 6},
}  # fmt: skip

# Terms of the objective that belong to a model: without them parts of it are never trained.
TERMS_OF: dict[str, list[dict[str, Any]]] = {
    "dat": [{"loss": "mimic"}, {"loss": "category_alignment", "feature": "genres"}],
    "ihm_dat": [{"loss": "mimic"}, {"loss": "hard_negatives"}, {"loss": "hard_mimic"}],
    "hit": [{"loss": "generator"}],
}

SIZES = {"user_id": 30, "age": 9, "history": 40, "item_id": 40, "genres": 12, "price": 8}


def small_schema(objectives: tuple[str, ...] = ("like",)) -> Schema:
    """Every kind of feature once, on both sides."""
    return Schema(
        features=(
            Feature(name="user_id", side="user"),
            Feature(name="age", side="user", width=4),
            Feature(name="history", side="user", kind="sequence", share="item_id", max_length=5, pooling="attention"),
            Feature(name="hour", side="context", kind="numeric"),
            Feature(name="item_id", side="item"),
            Feature(name="genres", side="item", kind="multi", max_length=3),
            Feature(name="price", side="item", kind="numeric", bins=5),
            Feature(name="picture", side="item", kind="vector", dim=7),
        ),
        user_id="user_id",
        item_id="item_id",
        objectives=objectives,
        width=6,
    )


def small_batch(seed: int = 0, lists: int = 24, candidates: int = 1, users: int = 10, items: int = 15, objectives: int = 1) -> Batch:
    """Random distinct rows and random pairs of them; with several candidates some are padding."""
    g = torch.Generator().manual_seed(seed)

    def ids(n: int, high: int, *shape: int, low: int = 3) -> torch.Tensor:
        return torch.randint(low, high, (n, *shape), generator=g, dtype=torch.int32)

    where = torch.rand(lists, candidates, generator=g) < 0.8
    where[:, 0] = True
    return Batch(
        user={"user_id": torch.randperm(27, generator=g)[:users].int() + 3, "age": ids(users, 9), "history": ids(users, 40, 5, low=0),
              "hour": torch.randn(users, generator=g)},
        item={"item_id": torch.randperm(37, generator=g)[:items].int() + 3, "genres": ids(items, 12, 3, low=0), "price": ids(items, 8),
              "picture": torch.randn(items, 7, generator=g)},
        user_index=torch.randint(0, users, (lists,), generator=g),
        item_index=torch.randint(0, items, (lists, candidates), generator=g) * where,
        labels=(torch.rand(lists, candidates, objectives, generator=g) < 0.5).float(),
        where=where,
    )  # fmt: skip


def small_model(name: str, objectives: tuple[str, ...] = ("like",), seed: int = 0) -> TwoTower:
    torch.manual_seed(seed)
    model = build.model(Model.model_validate(MODELS[name]), small_schema(objectives), SIZES)
    remember(model, len(objectives))
    return model


def remember(model: Any, objectives: int, rows: int = 300, batch: Batch | None = None) -> None:
    """Random train interactions, for models with histories; every id of `small_batch` has some. A batch's own come with them."""
    g = torch.Generator().manual_seed(7)
    users, items = (torch.randint(3, n, (rows,), generator=g) for n in (SIZES["user_id"], SIZES["item_id"]))
    level = torch.randint(0, objectives + 1, (rows,), generator=g)
    if batch is not None:
        u, c = batch.where.nonzero(as_tuple=True)
        users = torch.cat([users, batch.user["user_id"][batch.user_index[u]]])
        items = torch.cat([items, batch.item["item_id"][batch.item_index[u, c]]])
        level = torch.cat([level, (batch.labels[u, c] > 0).sum(dim=1)])
    model.remember(users, items, level)
    model.fill_cold_rows({name: torch.ones(n) for name, n in SIZES.items()})


@pytest.fixture(params=list(MODELS))
def model(request: pytest.FixtureRequest) -> TwoTower:
    """Every model in turn, fresh."""
    return small_model(request.param)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
