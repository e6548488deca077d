"""CTS and CMS at a moment: what later labels wrote is not read, and a batch that comes again writes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from prerank import build
from prerank.batch import Batch
from prerank.config import Model, Synergy
from prerank.store import EmaCache, History, Moment
from prerank.towers import TwoTower
from tests.conftest import SIZES, small_batch, small_schema
from tests.synergy.world import hidden_of, timed

MINUTE = 60_000
PARTS: list[dict[str, Any]] = [
    {"cts": {"inputs": "vector_count_age", "negatives": True}},
    {"cms": {"ranker": {"name": "mlp", "hidden": [7]}, "inputs": "vector_count_age"}},
]


def made(synergy: dict[str, Any]) -> TwoTower:
    torch.manual_seed(0)
    model = build.model(Model(name="dssm", hidden=[8]), small_schema(), SIZES, Synergy.model_validate(synergy),
                        history=History(MINUTE, 60 * MINUTE))  # fmt: skip
    assert isinstance(model, TwoTower)
    return model.eval()


def caches(model: TwoTower) -> list[EmaCache]:
    return [module for module in model.modules() if isinstance(module, EmaCache)]


def learn(model: TwoTower, batch: Batch, n: int) -> list[Any]:
    """The n-th batch of a stream, whose labels are known 10 minutes after it was shown. What the model said, and what it then holds."""
    assert batch.ts is not None
    shown = batch.ts[:, 0]
    for cache in caches(model):
        cache.moment = Moment(int(shown.min()), "w", n * 100 + torch.arange(len(shown)), int(shown.max()) + 10 * MINUTE)
    output = model(batch)
    model.observe(batch, output, hidden_of(model, batch, n))
    for cache in caches(model):
        cache.moment = None
    return [output.logits.tolist(), *(v.tolist() for name, v in sorted(model.state_dict().items()) if name in model.memory_names)]


def stream() -> list[Batch]:
    """A batch a minute; the first row is of nobody."""
    found = []
    for n in range(15):
        batch = timed(small_batch(n, lists=5), 10**9 + 10 * n * MINUTE)
        batch.user["user_id"][0] = batch.item["item_id"][0] = 2
        found.append(batch)
    return found


@pytest.mark.parametrize("synergy", PARTS, ids=["cts", "cms"])
def test_what_comes_again_is_said_again_and_written_once(synergy: dict[str, Any]) -> None:
    model, batches = made(synergy), stream()
    told = [learn(model, batch, n) for n, batch in enumerate(batches)]
    assert any(len(cache.store) for cache in caches(model))
    for n in range(10, 15):
        again = learn(model, batches[n], n)
        assert again == [told[n][0], *told[-1][1:]]  # the same scores, and memory as it is


@pytest.mark.parametrize("synergy", PARTS, ids=["cts", "cms"])
def test_labels_that_were_not_known_are_not_read(synergy: dict[str, Any]) -> None:
    """Those of the batch before become known a minute or more after the next one is shown."""
    first, soon, late = (timed(small_batch(n, lists=5), 10**9 + m * MINUTE) for n, m in ((0, 0), (1, 5), (1, 40)))
    model, other = made(synergy), made(synergy)
    learn(model, first, 0)
    assert learn(model, soon, 1)[0] == learn(other, soon, 1)[0]
    assert learn(model, late, 2)[0] != learn(made(synergy), late, 2)[0]
