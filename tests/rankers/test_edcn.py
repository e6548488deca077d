from __future__ import annotations

import numpy as np
import pytest
import torch

from prerank.rankers.edcn import BRIDGES, Regulation, edcn
from tests.conftest import SIZES, small_schema


def bridged(kind: str, module: torch.nn.Module, x: np.ndarray, h: np.ndarray) -> np.ndarray:
    w = {n: p.detach().numpy() for n, p in module.named_parameters()}
    if kind == "hadamard":
        return x * h
    if kind == "add":
        return x + h
    if kind == "concat":
        return np.maximum(np.concatenate([x, h], axis=1) @ w["join.weight"].T + w["join.bias"], 0)
    scores = [np.exp(np.maximum(side @ w["key.weight"].T + w["key.bias"], 0) @ w["query.weight"][0]) for side in (x, h)]
    a = scores[0] / (scores[0] + scores[1])
    return a[:, None] * x + (1 - a)[:, None] * h


@pytest.mark.parametrize("bridge", BRIDGES)
def test_against_the_equations(bridge: str) -> None:
    torch.manual_seed(0)
    model = edcn(small_schema(("a", "b")), SIZES, layers=3, bridge=bridge, temperature=0.5, norm=False).eval()
    net = model.network
    with torch.no_grad():
        for p in (*net.regulations.parameters(), *net.cross.parameters()):
            p.normal_(0, 0.4)
    fields = torch.randn(5, 8, 6)
    shared, first = fields.numpy().reshape(5, 48), None
    for regulation, cross, deep, join in zip(net.regulations, net.cross, net.deep, net.bridges, strict=True):
        gates = np.exp(regulation.weights.detach().numpy() / 0.5)
        gates = np.repeat(8 * gates / gates.sum(axis=1, keepdims=True), 6, axis=1)  # [2, F D]
        x, h = shared * gates[0], shared * gates[1]
        first = x if first is None else first
        w, b = cross.weight.detach().numpy(), cross.bias.detach().numpy()
        x = np.stack([first[i] * (x[i] @ w) + b + x[i] for i in range(5)])
        h = np.maximum(h @ deep.linear.weight.detach().numpy().T + deep.linear.bias.detach().numpy(), 0)
        shared = bridged(bridge, join, x, h)
    expected = np.concatenate([x, h, shared], axis=1)
    with torch.no_grad():
        logits, hidden = net(fields)
    np.testing.assert_allclose(hidden.numpy(), expected, rtol=1e-4, atol=1e-4)
    out = net.output
    np.testing.assert_allclose(logits.numpy(), expected @ out.weight.detach().numpy().T + out.bias.detach().numpy(), rtol=1e-4, atol=1e-4)


def test_a_gate_starts_at_one_and_a_small_temperature_chooses() -> None:
    shared = torch.randn(4, 12)
    fresh = Regulation(3, temperature=1.0)
    assert all(torch.allclose(side, shared) for side in fresh(shared))
    sharp = Regulation(3, temperature=0.01)
    with torch.no_grad():
        sharp.weights.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
        cross, deep = sharp(shared)
    torch.testing.assert_close(cross[:, :4], 3 * shared[:, :4])
    assert cross[:, 4:].abs().max() < 1e-6
    torch.testing.assert_close(deep[:, 8:], 3 * shared[:, 8:])


@pytest.mark.parametrize(
    "option", [{"layers": 0}, {"bridge": "rope"}, {"temperature": 0.0}, {"dropout": -0.1}, {"activation": "cube"}]
)
def test_wrong_options(option: dict) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(option))}: must be .*; got"):
        edcn(small_schema(), SIZES, **option)
