"""One step of learning: forward, loss, backward, clip, update. Every trainer is built on it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from prerank.batch import Batch, Output
from prerank.training.optimizer import Optimizer

Model = Callable[[Batch], Output]
Objective = Callable[[Batch, Output], tuple[Tensor, dict[str, Tensor]]]
Observe = Callable[[Batch, Output], None]


class DivergedError(ValueError):
    """The loss is NaN or infinite."""


def train_step(model: Model, objective: Objective, optimizer: Optimizer, batch: Batch, *, precision: str = "fp32",
               clip: float | None = None, observe: Observe | None = None) -> dict[str, Tensor]:  # fmt: skip
    """Learn from a batch; returns {'loss': total, term: value, ...}, detached scalars. Raises DivergedError.

    observe   called last, with what the model said before the step: a memory is read, then trained on, then written
    """
    optimizer.zero_grad()
    with autocast(precision, batch.user_index.device.type):
        output = model(batch)
    total, terms = objective(batch, output)
    if not torch.isfinite(total):
        raise DivergedError(f"loss is {total.item()}; terms: {', '.join(f'{k} {v.item():.4g}' for k, v in terms.items())}")
    total.backward()
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(optimizer.gradients(), clip)
    optimizer.step()
    if observe is not None:
        observe(batch, output)
    return {"loss": total.detach(), **terms}


def autocast(precision: str, device: str) -> AbstractContextManager[object]:
    """bf16 autocast, or nothing."""
    return torch.autocast(device, dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
