"""What an ablation asks of one finished replay, beyond its metrics: noisy inputs, how often ids were seen, and what the model costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from prerank.data import Dataset, Loader
from prerank.leaderboard.state import keep
from prerank.metrics import auc
from prerank.replay import Replayed
from prerank.run import Run
from prerank.towers import TwoTower
from prerank.training import predict
from prerank.training.online import Order

NOISE = 0.1  # deviation of the Gaussian noise on the fields that the towers read, the paper's


def measured(run: Run, replayed: Replayed) -> dict[str, Any]:
    """What the JSON needs of a run; what comparisons need, row by row of the test rows, is put into its folder."""
    order = replayed.order
    rows = order.rows[order.test :]
    keep(run.folder, prequential=replayed.prequential[order.test :], frozen=replayed.frozen,
         labels=(replayed.labels[order.test :] > 0).astype(np.uint8), groups=replayed.groups[order.test :],
         users=np.asarray(run.dataset.user_row)[rows])  # fmt: skip
    for side, entity in (("user", run.dataset.user_row), ("item", run.dataset.item_row)):
        keep(run.folder, **{f"{side}-events": events(np.asarray(entity)[order.rows], order.test)})
    noisy = _noisy(run, order)
    test = replayed.metrics["prequential"]
    positive = replayed.labels[order.test :] > 0
    objectives = run.dataset.schema.objectives
    return {
        "test": test, "frozen": replayed.metrics["frozen"], "before": replayed.metrics["before"],
        "noisy": {name: float(auc(noisy[:, objectives.index(name)], positive[:, objectives.index(name)])) for name in test},
        "seconds": round(replayed.seconds, 2), "cpu_seconds": round(replayed.cpu_seconds, 2), "rows": len(order.rows),
        "parameters": sum(p.numel() for p in run.model.parameters()), "memory_bytes": _memory(run.model),
        "flops": flops(run.model, run.dataset),
    }  # fmt: skip


def events(entity: NDArray[np.integer], test: int) -> NDArray[np.int32]:
    """Events of each test row's entity: before the row, and before the first test row.  # [n] -> [n - test, 2]

    >>> events(np.array([7, 7, 8, 7, 8, 9]), 3).tolist()
    [[2, 2], [1, 1], [0, 0]]
    """
    by = np.argsort(entity, kind="stable")
    new = np.r_[True, entity[by][1:] != entity[by][:-1]]
    first = np.maximum.accumulate(np.where(new, np.arange(len(entity)), 0))
    before = np.empty(len(entity), np.int32)
    before[by] = np.arange(len(entity)) - first
    seen, counts = np.unique(entity[:test], return_counts=True)
    at = np.searchsorted(seen, entity[test:]).clip(max=len(seen) - 1)
    known = np.where(seen[at] == entity[test:], counts[at], 0)
    return np.stack([before[test:], known], axis=1).astype(np.int32)


def flops(model: nn.Module, dataset: Dataset) -> int | None:
    """Floating-point operations of matrix products, a user's and an item's tower once; None for a model without towers."""
    if not isinstance(model, TwoTower):
        return None
    row = dataset.rows("test")[:1]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for side in ("user", "item"):
            model.encode(side, dataset.columns(side, row))
    return int(counter.get_total_flops())


def _memory(model: nn.Module) -> int:
    """Bytes of what CTS and CMS remember."""
    return sum(t.numel() * t.element_size() for memory in getattr(model, "memories", ()) for t in memory.tensors())


def _noisy(run: Run, order: Order) -> NDArray[np.float32]:
    """Logits of the test rows by the frozen model, with noise on every field that is read. The same noise for the same row and shape."""
    embeddings = getattr(run.model, "embeddings", None)
    if embeddings is None:
        raise ValueError("noise: this model reads no fields")
    generator = torch.Generator().manual_seed(1)

    def add(module: nn.Module, given: Any, fields: Tensor) -> Tensor:
        return fields + NOISE * torch.randn(fields.shape, generator=generator)

    hook = embeddings.register_forward_hook(add)
    try:
        loader = Loader(run.dataset.frozen(), order.rows[order.test :], 4096, shuffle="none", dedup=False)
        return predict(run.model, loader.epoch(0))[0]
    finally:
        hook.remove()
