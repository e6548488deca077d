"""Rows filled up to a round number change nothing but the time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from prerank.layers.linear import ROUND, Linear


def _pair(inputs: int = 5, outputs: int = 3) -> tuple[Linear, nn.Linear]:
    torch.manual_seed(0)
    ours, theirs = Linear(inputs, outputs), nn.Linear(inputs, outputs)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def _gradients(layer: nn.Module, x: Tensor, weight: Tensor, bf16: bool = False) -> list[Tensor]:
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        y = layer(x)
    (y.float() * weight).sum().backward()
    return [y, x.grad, *(p.grad for p in layer.parameters())]  # type: ignore[list-item]


@pytest.mark.parametrize("rows", [1, ROUND - 1, ROUND, ROUND + 1, 3 * ROUND + 7])
def test_values_and_gradients_are_those_of_torch(rows: int) -> None:
    x, weight = torch.randn(rows, 5), torch.randn(rows, 3)
    for ours, theirs in zip(*(_gradients(layer, x, weight) for layer in _pair()), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_under_autocast_types_and_values_are_those_of_torch() -> None:
    x, weight = torch.randn(100, 5), torch.randn(100, 3)
    for ours, theirs in zip(*(_gradients(layer, x, weight, bf16=True) for layer in _pair()), strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=3e-2, atol=3e-2)


def test_gradients_against_finite_differences() -> None:
    layer = Linear(4, 3).double()
    x = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)

    def product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(product, (x, layer.weight, layer.bias))


def test_no_bias_and_an_input_without_gradient() -> None:
    layer, x = Linear(4, 3, bias=False), torch.randn(10, 4)
    layer(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.sum(dim=0).expand(3, 4))


def test_products_see_few_row_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, linear = set(), torch.nn.functional.linear
    monkeypatch.setattr("torch.nn.functional.linear", lambda x, *rest: seen.add(len(x)) or linear(x, *rest))
    layer = Linear(4, 3)
    for rows in range(1, 2 * ROUND + 1):
        assert len(layer(torch.randn(rows, 4))) == rows
    assert seen == {ROUND, 2 * ROUND}
    seen.clear()
    layer.eval()(torch.randn(5, 4))
    assert seen == {5}
