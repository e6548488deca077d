"""Whoever learns while it predicts: a model, its optimiser, its averaged weights, and the model that predicts; alone or in a pair."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prerank.batch import Batch, Memorising, Output
from prerank.config import Training as Settings
from prerank.store import EmaCache
from prerank.training.averaging import Average
from prerank.training.optimizer import Optimizer
from prerank.training.predict import evaluating
from prerank.training.rows import reset_rows
from prerank.training.step import DivergedError, Objective, step_together, train_step
from prerank.training.together import Group


class Learner:
    """A model, its optimiser, and the model that predicts: itself, or one made of its averaged weights.

    processes   that learn together, a batch each a step
    """

    def __init__(self, model: nn.Module, counts: Mapping[str, NDArray[Any]], settings: Settings, device: torch.device,
                 processes: int = 1) -> None:  # fmt: skip
        weights = {name: torch.from_numpy(np.array(c)) for name, c in counts.items()}
        self.model = model.to(device)
        self.optimizer = Optimizer(self.model, settings.optimizer, weights, settings.batch_size * processes)
        rowwise = self.optimizer.rowwise.parameters if self.optimizer.rowwise else {}
        buffers = {name for name, _ in model.named_buffers()}
        self.average = Average(self.model, settings.average, frozenset({*rowwise, *buffers}))
        self.predictor = self.model if settings.average is None else _made_of(self.model, self.average.average)
        self.predictor.eval()

    def tensors(self) -> dict[str, Tensor]:
        parts = {"model": self.model.state_dict(), "optimizer": self.optimizer.tensors(), "average": self.average.tensors()}
        return {f"{part}/{name}": value for part, tensors in parts.items() for name, value in tensors.items()}

    def begin(self, weights: Mapping[str, Tensor]) -> None:
        """From these weights, and nothing learned. Raises RuntimeError when they are of another model."""
        self.model.load_state_dict(weights)
        self.average.begin()

    def load(self, found: Callable[[str], dict[str, Tensor]]) -> None:
        self.model.load_state_dict(found("model"))
        self.optimizer.load_tensors(found("optimizer"))
        self.average.load_tensors(found("average"))


class Pair:
    """A model and, for CMS, the ranking model beside it (None: there is none), which goes through the same batches.

    taught   memories that the model, a ranking model itself, fills for others
    group    who learns together with us; None: nobody
    """

    def __init__(self, main: Learner, beside: Learner | None, objective: Objective, settings: Settings,
                 taught: Sequence[Memorising] = (), group: Group | None = None) -> None:  # fmt: skip
        self.main, self.beside, self.objective, self.settings, self.taught = main, beside, objective, settings, taught
        self.group = group or Group()

    def step(self, batch: Batch | None, number: int) -> float:
        """One step of both, with the batches of all of the group, None: we have none; memories are written last. The loss of the model.
        Raises DivergedError, which names the batch's number, GroupError."""
        model: Any = self.main.model
        hidden = self._hidden(self.main.model, batch) if self.taught else None
        if self.beside:
            hidden = self._hidden(self.beside.model, batch)
            self._train(self.beside, batch, number, None)

        def observe(batch: Batch, output: Output) -> None:
            for memory in self.taught:
                memory.observe(batch, output, hidden)
            if not self.taught:
                model.observe(batch, output, hidden)

        return self._train(self.main, batch, number, observe if self.taught or getattr(model, "memories", ()) else None)

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint: main/.., beside/.."""
        parts = {"main": self.main, **({"beside": self.beside} if self.beside else {})}
        return {f"{part}/{name}": value for part, learner in parts.items() for name, value in learner.tensors().items()}

    def load(self, found: Callable[[str], dict[str, Tensor]]) -> None:
        """The inverse; found: a checkpoint's `part`."""
        self.main.load(lambda part: found(f"main/{part}"))
        if self.beside is not None:
            self.beside.load(lambda part: found(f"beside/{part}"))

    def reset_rows(self, rows: Mapping[str, NDArray[Any]]) -> None:
        """Rows of growing vocabularies that have a new id: see `rows.reset_rows`."""
        for learner in (self.main, self.beside):
            if learner is not None:
                reset_rows(learner.model, learner.optimizer, learner.average, rows)

    def _hidden(self, ranker: nn.Module, batch: Batch | None) -> Tensor | None:
        """A ranking model's hidden vectors [B, C, K] of a batch that it has not learned from."""
        if batch is None:
            return None
        with torch.no_grad(), evaluating(ranker):
            hidden: Tensor = ranker(batch).hidden
        return hidden

    def _train(self, learner: Learner, batch: Batch | None, number: int, observe: Callable[[Batch, Output], None] | None) -> float:
        learner.model.train()
        options: Any = {"precision": self.settings.precision, "clip": self.settings.clip, "observe": observe}
        try:
            if self.group.world > 1:
                loss = step_together(self.group, learner.model, self.objective, learner.optimizer, batch, **options)
            else:
                assert batch is not None, "alone, there is a batch"
                loss = float(train_step(learner.model, self.objective, learner.optimizer, batch, **options)["loss"])
        except DivergedError as error:
            raise DivergedError(f"training diverged in batch {number}: {error}; try a lower lr or clip") from None
        learner.average.update()
        return loss


def _made_of(model: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """A second model of the same shape whose parameters are these tensors, and the model's own where there are none: it follows both.

    Caches are the model's own, too: there is one memory.
    """
    kept: dict[int, Any] = {id(t): t for t in (*model.parameters(), *model.buffers())}
    kept |= {id(m): m for m in model.modules() if isinstance(m, EmaCache)}
    follower = copy.deepcopy(model, kept)
    for name, value in tensors.items():
        owner, _, leaf = name.rpartition(".")
        module = follower.get_submodule(owner)
        module._parameters[leaf] = nn.Parameter(value, requires_grad=False)
    return follower
