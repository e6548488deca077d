"""Dropout against what its docstring promises, and the gradient of the mask that was drawn."""

from __future__ import annotations

import pytest
import torch

from prerank.layers.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_drops_its_part_and_keeps_the_mean(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    out = Dropout(p)(torch.ones(1001, 999, dtype=dtype))
    assert out.dtype == dtype
    kept = (out != 0).double()
    assert abs(float(kept.mean()) - (1 - p)) < 5 * (p * (1 - p) / kept.numel()) ** 0.5 + 1e-5
    torch.testing.assert_close(out[out != 0].double().mean(), torch.tensor(1 / (1 - p), dtype=torch.float64), rtol=4e-3, atol=0)
    assert out.unique().numel() == 2


def test_numbers_are_dropped_independently() -> None:
    """Neighbours share a draw of 64 bits: no correlation at any small distance, between rows or between calls."""
    torch.manual_seed(1)
    layer = Dropout(0.3)
    first, second = (layer(torch.ones(512, 513)).bool().double() - 0.7 for _ in range(2))
    sure = 5 / first.numel() ** 0.5
    flat = first.flatten()
    for distance in (1, 2, 3, 4, 5, 8, 513):
        assert abs(float((flat[distance:] * flat[:-distance]).mean())) / 0.21 < sure
    assert abs(float((first * second).mean())) / 0.21 < sure


def test_gradient_passes_where_the_numbers_passed() -> None:
    torch.manual_seed(2)
    x = torch.randn(7, 5, requires_grad=True)
    out = Dropout(0.5)(x)
    out.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.where(out != 0, 2.0, 0.0))


def test_the_seed_decides_and_eval_changes_nothing() -> None:
    layer, x = Dropout(0.4), torch.randn(33, 3)
    torch.manual_seed(3)
    first = layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)
    assert layer.eval()(x) is x


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5])
def test_a_part_outside_0_and_1_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match=r"dropout: must be in \[0, 1\); got"):
        Dropout(p)
