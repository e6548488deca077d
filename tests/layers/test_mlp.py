from __future__ import annotations

import torch
from torch import nn

from prerank.layers.mlp import FullyConnected


def test_one_row_is_normalised_by_the_running_statistics() -> None:
    """As in eval mode, and without moving them; two rows and more are torch's own BatchNorm."""
    torch.manual_seed(0)
    layer = FullyConnected(3, 4, activation="tanh")
    oracle = nn.Sequential(layer.linear, nn.BatchNorm1d(4), nn.Tanh())
    many, one = torch.randn(8, 3), torch.randn(1, 3)
    torch.testing.assert_close(layer.train()(many), oracle.train()(many))
    before = {k: v.clone() for k, v in layer.norm.state_dict().items()}
    torch.testing.assert_close(layer(one), oracle.eval()(one))
    assert all(torch.equal(before[k], v) for k, v in layer.norm.state_dict().items())
    torch.testing.assert_close(layer.eval()(one), oracle(one))
