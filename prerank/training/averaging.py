"""Averaged weights: what is validated, saved and served is the mean of the last steps, which steps over the noise of each.

    average <- d average + (1 - d) weights after every step,  d = min(decay, (1 + step) / (10 + step))

Polyak and Juditsky 1992, in its exponential form; the early d is Adam-style bias correction's kin (ours), so that the
start is forgotten. Running statistics of normalisation are averaged likewise. Tables that are updated row by row are not: the
average would touch every row at every step. Nor are memories (CTS, CMS), which are no weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The average of a model's floating-point state.

    decay   d of an old average; None: nothing is averaged, and `applied` changes nothing
    left    names of parameters that are not averaged
    """

    def __init__(self, model: nn.Module, decay: float | None, left: frozenset[str]) -> None:
        self.decay, self.steps = decay, 0
        state = model.state_dict(keep_vars=True)
        left = left | getattr(model, "memory_names", frozenset())
        self.live = {k: v.detach() for k, v in state.items() if v.is_floating_point() and k not in left} if decay is not None else {}
        self.average = {k: v.clone() for k, v in self.live.items()}

    @torch.no_grad()
    def begin(self) -> None:
        """The average of no step: the weights themselves."""
        for name, value in self.average.items():
            value.copy_(self.live[name])
        self.steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """After a step."""
        if self.decay is None:
            return
        self.steps += 1
        d = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(list(self.average.values()), list(self.live.values()), 1 - d)

    @torch.no_grad()
    def copy_rows(self, name: str, rows: Tensor, source: Tensor) -> None:
        """Rows [n] of a tensor become the averages of the rows `source` [n]; nothing for one that is not averaged."""
        if name in self.average:
            self.average[name][rows] = self.average[name][source]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the averaged weights; what is done to them inside stays with the average."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {**self.average, "": torch.tensor(self.steps)}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`."""
        self.steps = int(tensors[""])
        for name, value in self.average.items():
            value.copy_(tensors[name])

    @torch.no_grad()
    def _swap(self) -> None:
        for name, live in self.live.items():
            kept = live.clone()
            live.copy_(self.average[name])
            self.average[name].copy_(kept)
