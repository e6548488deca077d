from __future__ import annotations

import numpy as np
import pytest
import torch

from prerank.rankers.xdeepint import xdeepint
from tests.conftest import SIZES, small_schema


@pytest.mark.parametrize("subspaces", [1, 2, 3, 6])
def test_against_the_equations(subspaces: int) -> None:
    torch.manual_seed(0)
    net = xdeepint(small_schema(("a", "b")), SIZES, layers=3, subspaces=subspaces).network.eval()
    fields = torch.randn(4, 8, 6)
    with torch.no_grad():
        logits, hidden = net(fields)
    d = 6 // subspaces
    for row in range(4):
        first = np.stack([fields[row, f, s * d : (s + 1) * d].numpy() for f in range(8) for s in range(subspaces)])  # [F h, d]
        x = first
        for layer in net.layers:
            x = x * (layer.weight.detach().numpy() @ first) + x
        np.testing.assert_allclose(hidden[row].numpy().reshape(d, -1).T, x, atol=1e-5)
        expected = (net.output.weight.detach().numpy() @ x).sum(axis=1) + net.output.bias.detach().numpy()
        np.testing.assert_allclose(logits[row].numpy(), expected, atol=1e-4)


def test_it_is_a_polynomial_of_degree_layers_plus_one() -> None:
    net = xdeepint(small_schema(), SIZES, layers=2, subspaces=2).network.double().eval()
    fields = torch.randn(1, 8, 6, dtype=torch.float64)
    with torch.no_grad():
        values = torch.cat([net(t * fields)[0] for t in range(6)]).squeeze()  # at t = 0..5
    differences = values
    for _ in range(4):
        differences = differences.diff()
    assert differences.abs().max() < 1e-9 * values.abs().max()  # no fourth degree ..
    assert values.diff(n=3).abs().max() > 1e-6  # .. but a third


@pytest.mark.parametrize("option", [{"layers": 0}, {"subspaces": 4}, {"subspaces": 0}, {"dropout": 1.0}])
def test_wrong_options(option: dict) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(option))}: must .*; got"):
        xdeepint(small_schema(), SIZES, **{"subspaces": 2, **option})
