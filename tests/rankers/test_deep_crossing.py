from __future__ import annotations

import numpy as np
import pytest
import torch

from prerank.rankers.deep_crossing import deep_crossing
from tests.conftest import SIZES, small_schema


def test_against_the_equations() -> None:
    torch.manual_seed(0)
    model = deep_crossing(small_schema(), SIZES, hidden=(5, 4), norm=False).eval()
    fields = torch.randn(7, 8, 6)
    x = fields.reshape(7, 48).numpy()
    for unit in model.network.units:
        w0, b0 = unit.inner.linear.weight.detach().numpy(), unit.inner.linear.bias.detach().numpy()
        w1, b1 = unit.outer.weight.detach().numpy(), unit.outer.bias.detach().numpy()
        x = np.maximum(x + np.maximum(x @ w0.T + b0, 0) @ w1.T + b1, 0)
    with torch.no_grad():
        logits, hidden = model.network(fields)
    np.testing.assert_allclose(hidden.numpy(), x, atol=1e-5)
    expected = x @ model.network.output.weight.detach().numpy().T + model.network.output.bias.detach().numpy()
    np.testing.assert_allclose(logits.numpy(), expected, atol=1e-5)


def test_a_unit_without_weights_passes_what_is_positive() -> None:
    model = deep_crossing(small_schema(), SIZES, hidden=(5,), norm=False)
    torch.nn.init.zeros_(model.network.units[0].outer.weight)
    torch.nn.init.zeros_(model.network.units[0].outer.bias)
    fields = torch.randn(3, 8, 6)
    assert torch.equal(model.network(fields)[1], fields.flatten(1).relu())


@pytest.mark.parametrize("option", [{"hidden": ()}, {"hidden": (4, 0)}, {"dropout": 1.0}, {"activation": "cube"}])
def test_wrong_options(option: dict) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(option))}: .*; got"):
        deep_crossing(small_schema(), SIZES, **option)
