"""Whoever learns while it predicts: a model, its optimiser, its averaged weights, and the model that predicts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prerank.config import Training as Settings
from prerank.training.averaging import Average
from prerank.training.optimizer import Optimizer


class Learner:
    """A model, its optimiser, and the model that predicts: itself, or one made of its averaged weights."""

    def __init__(self, model: nn.Module, counts: Mapping[str, NDArray[Any]], settings: Settings, device: torch.device) -> None:
        weights = {name: torch.from_numpy(np.array(c)) for name, c in counts.items()}
        self.model = model.to(device)
        self.optimizer = Optimizer(self.model, settings.optimizer, weights, settings.batch_size)
        rowwise = self.optimizer.rowwise.parameters if self.optimizer.rowwise else {}
        buffers = {name for name, _ in model.named_buffers()}
        self.average = Average(self.model, settings.average, frozenset({*rowwise, *buffers}))
        self.predictor = self.model if settings.average is None else _made_of(self.model, self.average.average)
        self.predictor.eval()

    def tensors(self) -> dict[str, Tensor]:
        parts = {"model": self.model.state_dict(), "optimizer": self.optimizer.tensors(), "average": self.average.tensors()}
        return {f"{part}/{name}": value for part, tensors in parts.items() for name, value in tensors.items()}

    def load(self, found: Callable[[str], dict[str, Tensor]]) -> None:
        self.model.load_state_dict(found("model"))
        self.optimizer.load_tensors(found("optimizer"))
        self.average.load_tensors(found("average"))


def _made_of(model: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """A second model of the same shape whose parameters are these tensors, and the model's own where there are none: it follows both."""
    kept = {id(t): t for t in (*model.parameters(), *model.buffers())}
    follower = copy.deepcopy(model, dict(kept))
    for name, value in tensors.items():
        owner, _, leaf = name.rpartition(".")
        module = follower.get_submodule(owner)
        module._parameters[leaf] = nn.Parameter(value, requires_grad=False)
    return follower
