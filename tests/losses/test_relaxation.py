"""Relaxed permutations: their formula, the hard sort in the limit, and slopes written by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prerank.losses.relaxation import NeuralSort, Relaxation, SoftSort, likeness
from tests.losses import oracles

KINDS: list[tuple[type[Relaxation], dict[str, float]]] = [
    (NeuralSort, {}), (SoftSort, {}), (SoftSort, {"power": 1.0}), (SoftSort, {"power": 1.5}),
]  # fmt: skip
kinds = pytest.mark.parametrize(("kind", "options"), KINDS)


def numbers(l: int = 3, m: int = 6) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: E741
    g = torch.Generator().manual_seed(0)
    keep = torch.rand(l, m, generator=g) < 0.7
    keep[:, :2], keep[0] = True, True
    return torch.randn(l, m, generator=g, dtype=torch.float64), keep


@kinds
def test_rows_are_the_formula(kind: type[Relaxation], options: dict[str, float]) -> None:
    s, keep = numbers()
    found = kind(0.7, **options).rows(s, keep).exp()
    for row in range(len(s)):
        left = keep[row]
        numbers_left = s[row][left].tolist()
        wanted = oracles.neural(numbers_left, 0.7) if kind is NeuralSort else oracles.soft(numbers_left, 0.7, options.get("power", 2.0))
        m = int(left.sum())
        np.testing.assert_allclose(found[row, :m][:, left].numpy(), wanted, rtol=1e-9)
        assert found[row, :m][:, ~left].sum().item() == 0


@given(st.lists(st.integers(-30, 30), min_size=2, max_size=9, unique=True))
def test_a_sharp_temperature_gives_the_hard_sort(values: list[int]) -> None:
    s, n = torch.tensor([values], dtype=torch.float64), len(values)
    hard = torch.nn.functional.one_hot(s.argsort(descending=True), n).double()
    for relaxation in (NeuralSort(1e-3), SoftSort(1e-3), SoftSort(1e-3, 1.0)):
        torch.testing.assert_close(relaxation.rows(s, torch.ones_like(s, dtype=torch.bool)).exp(), hard)


@kinds
def test_permuting_the_candidates_permutes_the_columns(kind: type[Relaxation], options: dict[str, float]) -> None:
    s, keep = numbers()
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    relaxation = kind(1.3, **options)
    inside = keep.sum(dim=1)
    one, two = relaxation.rows(s, keep)[:, :, order], relaxation.rows(s[:, order], keep[:, order])
    for row in range(len(s)):
        torch.testing.assert_close(one[row, : inside[row]], two[row, : inside[row]])


@kinds
def test_the_slope_is_that_of_finite_differences(kind: type[Relaxation], options: dict[str, float]) -> None:
    s, keep = numbers()
    weights = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    inside = (torch.arange(6) < keep.sum(dim=1, keepdim=True)).unsqueeze(2) & keep.unsqueeze(1)

    def value(z: torch.Tensor) -> torch.Tensor:
        return (kind(0.9, **options).rows(z, keep) * weights).masked_fill(~inside, 0.0).sum()

    assert torch.autograd.gradcheck(value, (s.requires_grad_(),))


@kinds
def test_likeness_knows_its_own_slope(kind: type[Relaxation], options: dict[str, float]) -> None:
    """Against autograd over the formula."""
    s, keep = numbers()
    y = torch.randint(0, 3, s.shape, generator=torch.Generator().manual_seed(1)).double()
    of_scores, of_labels = kind(0.9, **options), kind(0.2, **options)
    inside = (torch.arange(6) < keep.sum(dim=1, keepdim=True)).unsqueeze(2) & keep.unsqueeze(1)
    z = s.clone().requires_grad_()
    each = (of_labels.rows(y, keep).exp() * of_scores.rows(z, keep)).masked_fill(~inside, 0.0).sum(dim=(1, 2))
    whole = -each / keep.sum(dim=1)
    (slope,) = torch.autograd.grad(whole.sum(), z)
    value, found = likeness(s, y, keep, of_scores, of_labels)
    torch.testing.assert_close(value, whole.detach())
    torch.testing.assert_close(found, slope)
