"""Parts change nothing but time and memory."""

from __future__ import annotations

import pytest
import torch

from prerank.losses import parts, softsort
from prerank.losses.parts import by_parts


def values(z: torch.Tensor, keep: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Two numbers a list, with every candidate met by every other."""
    both = keep.unsqueeze(2) & keep.unsqueeze(1)
    gaps = ((z.unsqueeze(2) - z.unsqueeze(1)).square() * y.unsqueeze(1)).masked_fill(~both, 0.0).sum(dim=(1, 2))
    return torch.stack([gaps, (z * y).masked_fill(~keep, 0.0).sum(dim=1)], dim=1)


@pytest.mark.parametrize("size", [1, 40, 1 << 20])
def test_values_and_gradient_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setitem(parts.SIZE, "cpu", size)
    g = torch.Generator().manual_seed(0)
    z, y = (torch.randn(3, 4, 7, generator=g, dtype=torch.float64) for _ in range(2))
    keep = torch.rand(3, 4, 7, generator=g) < 0.6
    keep[0, 0] = False
    one, two = z.clone().requires_grad_(), z.clone().requires_grad_()
    found = by_parts(values, one, keep, y)
    whole = values(two.reshape(-1, 7), keep.reshape(-1, 7), y.reshape(-1, 7)).reshape(3, 4, 2)
    torch.testing.assert_close(found, whole)
    weights = torch.randn(3, 4, 2, generator=g, dtype=torch.float64)
    (found * weights).sum().backward()
    (whole * weights).sum().backward()
    torch.testing.assert_close(one.grad, two.grad)


def test_without_gradient_the_value_is_the_same() -> None:
    z, y = torch.randn(5, 9), torch.randint(0, 3, (5, 9)).float()
    with torch.no_grad():
        plain = softsort(z, y)
    assert plain.item() == softsort(z.requires_grad_(), y).item()


def test_no_list_at_all() -> None:
    z = torch.zeros(0, 4, requires_grad=True)
    loss = softsort(z, torch.zeros(0, 4))
    loss.backward()
    assert loss.item() == 0
