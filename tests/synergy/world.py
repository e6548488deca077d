"""Two-towers with CS3 in them, built as a config builds them, over the small schema of tests/conftest.py."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import torch

from prerank import build
from prerank.batch import Batch
from prerank.config import Model
from prerank.config.synergy import Synergy
from prerank.towers import TwoTower
from tests.conftest import MODELS, SIZES, remember, small_batch, small_schema

BACKBONES = ("dssm", "dat", "ihm-dat", "rcg", "inttower", "ranktower", "hit", "dssm-cosine-id-head", "rcg-id-head")
PARTS: dict[str, dict[str, Any]] = {
    "cas": {"sides": ["user", "item"]},
    "cts": {"inputs": "vector_count_age", "negatives": True},
    "cms": {"ranker": {"name": "dcnv2", "hidden": [8]}, "inputs": "vector_count_age"},
}
SUBSETS = ["+".join(s) or "none" for n in range(4) for s in itertools.combinations(PARTS, n)]
WHOLE = "cas+cts+cms"


def settings(subset: str) -> Synergy | None:
    """The subset's settings; 'none': a plain backbone."""
    return None if subset == "none" else Synergy.model_validate({part: PARTS[part] for part in subset.split("+")})


def synergised(name: str, synergy: Synergy | dict[str, Any] | None, seed: int = 0, objectives: tuple[str, ...] = ("like",)) -> TwoTower:
    """A model of tests/conftest.py with CS3."""
    torch.manual_seed(seed)
    if isinstance(synergy, dict):
        synergy = Synergy.model_validate(synergy)
    model = build.model(Model.model_validate(MODELS[name]), small_schema(objectives), SIZES, synergy)
    assert isinstance(model, TwoTower)
    remember(model, len(objectives))
    return model


def hidden_of(model: TwoTower, batch: Batch, seed: int = 5) -> torch.Tensor | None:
    """A ranking model's vectors as wide as the model wants them, or None where it wants none."""
    widths = [memory.cache.width for memory in model.memories if memory.needs_hidden]
    if not widths:
        return None
    return torch.randn(*batch.item_index.shape, widths[0], generator=torch.Generator().manual_seed(seed))


def timed(batch: Batch, at: int = 1_000_000_000) -> Batch:
    """The batch at a time, each row a minute after the one before."""
    minutes = torch.arange(batch.rows).unsqueeze(1).expand_as(batch.item_index)
    return replace(batch, ts=at + 60_000 * minutes)


def warm(model: TwoTower, batches: int = 4) -> TwoTower:
    """Let it observe a few batches, and excite what CAS starts with at zero."""
    model.train()
    for seed in range(batches):
        batch = timed(small_batch(seed, objectives=model.head.objectives), 10**9 * (seed + 1))
        model.observe(batch, model(batch), hidden_of(model, batch, seed))
    for name, parameter in model.named_parameters():
        if ".excite." in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model
