from __future__ import annotations

import torch

from prerank.layers import LightSE, SENet


def test_light_se_is_equations_3_to_5() -> None:
    e = torch.randn(7, 4, 5)
    gate = LightSE(4, residual=False)
    z = torch.stack([e[:, i].mean(dim=1) for i in range(4)], dim=1)
    k = torch.softmax(z @ gate.excite.weight.T + gate.excite.bias, dim=1)
    expected = torch.stack([k[:, i : i + 1] * e[:, i] for i in range(4)], dim=1)
    torch.testing.assert_close(gate(e), expected)
    residual = LightSE(4, residual=True)
    residual.load_state_dict(gate.state_dict())
    torch.testing.assert_close(residual(e), e + expected)


def test_senet_squeezes_and_excites() -> None:
    e = torch.randn(7, 6, 5)
    gate = SENet(6)
    w1, b1, w2, b2 = (p for p in gate.parameters())
    assert w1.shape == (2, 6)
    s = torch.nn.functional.leaky_relu(e.mean(dim=2) @ w1.T + b1)
    expected = e * torch.sigmoid(s @ w2.T + b2).unsqueeze(2)
    torch.testing.assert_close(gate(e), expected)
