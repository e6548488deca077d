"""One step of learning: forward, loss, backward, clip, update. Every trainer is built on it, alone or together with others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from prerank.batch import Batch, Output
from prerank.training.optimizer import Optimizer
from prerank.training.together import Group

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
    output, values = _backward(model, objective, batch, precision)
    _update(optimizer, clip)
    if observe is not None:
        observe(batch, output)
    return values


def step_together(group: Group, model: nn.Module, objective: Objective, optimizer: Optimizer, batch: Batch | None, *,
                  precision: str = "fp32", clip: float | None = None, observe: Observe | None = None) -> float:  # fmt: skip
    """One step from the batches of all processes of a group, None: we have none; the mean loss. Raises DivergedError, GroupError.

    It is the step of the mean over all rows, where the loss is a mean over rows and nothing in the model looks at other rows (BatchNorm
    does: each process normalises by its own batch). Memories are written in turn.
    """
    optimizer.zero_grad()
    rows, loss, output = 0, 0.0, None
    if batch is not None:
        output, values = _backward(model, objective, batch, precision)
        rows, loss = batch.rows, float(values["loss"])
    mean = group.reduce(optimizer, rows, loss)
    _update(optimizer, clip)
    if observe is not None:
        with group.in_turn():
            if batch is not None and output is not None:
                observe(batch, output)
    group.settle(model, rows)
    return mean


def _backward(model: Model, objective: Objective, batch: Batch, precision: str) -> tuple[Output, dict[str, Tensor]]:
    with autocast(precision, batch.user_index.device.type):
        output = model(batch)
    total, terms = objective(batch, output)
    if not torch.isfinite(total):
        raise DivergedError(f"loss is {total.item()}; terms: {', '.join(f'{k} {v.item():.4g}' for k, v in terms.items())}")
    total.backward()
    return output, {"loss": total.detach(), **terms}


def _update(optimizer: Optimizer, clip: float | None) -> None:
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(optimizer.gradients(), clip)
    optimizer.step()


def autocast(precision: str, device: str) -> AbstractContextManager[object]:
    """bf16 autocast, or nothing."""
    return torch.autocast(device, dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
