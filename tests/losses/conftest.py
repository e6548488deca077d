"""Lists in double precision, as torch tensors for the loss and as plain Python lists for the oracle."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

Lists = Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


@pytest.fixture
def lists() -> Lists:
    """(graded=False, b=4, n=6) -> logits, labels, where [b, n]; the last list has labels that are all 0."""

    def make(graded: bool = False, b: int = 4, n: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        g = torch.Generator().manual_seed(b * 100 + n + graded)
        logits = torch.randn(b, n, generator=g, dtype=torch.float64)
        labels = torch.randint(0, 4 if graded else 2, (b, n), generator=g).double()
        where = torch.rand(b, n, generator=g) < 0.8
        labels[:, 0], labels[:, 1], where[:, :2] = 1.0, 0.0, True
        labels[-1] = 0.0
        return logits, labels, where

    return make


@pytest.fixture
def plain() -> Callable[..., list[tuple[list[float], list[float]]]]:
    """logits, labels, where -> for each list the candidates that are left, as numbers."""

    def make(logits: torch.Tensor, labels: torch.Tensor, where: torch.Tensor) -> list[tuple[list[float], list[float]]]:
        return [(z[w].tolist(), y[w].tolist()) for z, y, w in zip(logits, labels, where, strict=True)]

    return make
