from __future__ import annotations

import numpy as np
import pytest
import torch

from prerank.layers.selection import ConcreteGate, SEGate, cut_linear


def test_se_gate_against_its_equation() -> None:
    torch.manual_seed(0)
    gate, fields = SEGate(3, 2), torch.randn(4, 3, 2)
    w, b = gate.excite.weight.detach().numpy(), gate.excite.bias.detach().numpy()
    expected = [1 / (1 + np.exp(-(w @ row.numpy().reshape(6) + b))) for row in fields]
    np.testing.assert_allclose(gate(fields).detach().numpy(), expected, atol=1e-6)


def test_a_cut_gate_says_the_same_where_what_is_gone_is_at_its_mean() -> None:
    torch.manual_seed(0)
    whole, small, fields = SEGate(4, 3), SEGate(2, 3), torch.randn(5, 4, 3)
    mean = fields.mean(dim=0)
    fields[:, [1, 3]] = mean[[1, 3]]
    kept = torch.tensor([0, 2])
    small.cut(whole, kept, mean)
    torch.testing.assert_close(small(fields[:, kept]), whole(fields)[:, kept])


def test_a_cut_layer_says_the_same_where_what_is_gone_is_at_its_mean() -> None:
    torch.manual_seed(0)
    whole, small, fields = torch.nn.Linear(12, 5), torch.nn.Linear(6, 5), torch.randn(6, 4, 3)
    mean, scale, kept = fields.mean(dim=0), torch.tensor([0.5, 1.0, 2.0, 1.0]), torch.tensor([0, 2])
    cut_linear(small, whole, kept, mean, scale)
    seen = fields * scale.view(4, 1)
    seen[:, [1, 3]] = mean[[1, 3]]
    torch.testing.assert_close(small(fields[:, kept].flatten(1)), whole(seen.flatten(1)))


def test_a_concrete_gate_is_on_as_often_as_it_says() -> None:
    torch.manual_seed(0)
    gate = ConcreteGate(3, temperature=0.1, initial=0.5)
    with torch.no_grad():
        gate.logits.copy_(torch.logit(torch.tensor([0.1, 0.5, 0.9])))
    z = gate(torch.zeros(20_000, 3, 2))
    torch.testing.assert_close((z > 0.5).float().mean(dim=0), torch.tensor([0.1, 0.5, 0.9]), atol=0.02, rtol=0)
    assert ((z < 0.1) | (z > 0.9)).float().mean() > 0.85  # t = .1 is nearly binary
    gate.eval()
    torch.testing.assert_close(gate(torch.zeros(7, 3, 2)), torch.tensor([[0.1, 0.5, 0.9]]))


def test_a_concrete_gate_has_the_equations_gradient() -> None:
    """d z / d logit = z (1 - z) / t, by finite differences of the same draw."""
    gate = ConcreteGate(1, temperature=0.5, initial=0.7).double()
    values = []
    for shift in (0.0, 1e-6):
        torch.manual_seed(3)
        gate.logits.data += shift
        values.append(gate(torch.zeros(50, 1, 1)).sum())
    (gradient,) = torch.autograd.grad(values[1], gate.logits)
    assert gradient.item() == pytest.approx((values[1] - values[0]).item() / 1e-6, rel=1e-3)
