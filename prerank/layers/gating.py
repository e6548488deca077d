"""Field gates: each field of a tower is re-weighted by what all of its fields say."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prerank.layers.linear import Linear


class LightSE(nn.Module):
    """IntTower's Light-SE (CIKM 2022, eq. 3-5): one softmax over fields, from their means.

        z_i = mean_t e_i[t];   k = softmax(W z + b);   e~_i = k_i e_i

    The released code returns `e + k * e` (and has no bias, and a ReLU before its softmax); `residual=True`
    follows it in the sum and is the default, because a bare softmax shrinks every field by 1/F.

    >>> LightSE(3)(torch.ones(1, 3, 2)).shape
    torch.Size([1, 3, 2])
    """

    def __init__(self, fields: int, residual: bool = True) -> None:
        super().__init__()
        self.excite = Linear(fields, fields)
        self.residual = residual

    def forward(self, fields: Tensor) -> Tensor:
        """[rows, F, D] -> [rows, F, D]."""
        weights = torch.softmax(self.excite(fields.mean(dim=2)), dim=1)  # [rows, F]
        gated = fields * weights.unsqueeze(2)
        return fields + gated if self.residual else gated


class SENet(nn.Module):
    """FiBiNET's SENet gate (RecSys 2019, eq. 4-6): squeeze, two layers with reduction 3, re-weight.

    It is the ablation of Light-SE in IntTower's figure 6: more parameters and a second layer. The activations are
    our choice (the paper names none): leaky, because with few fields the middle is one unit wide and a ReLU can die
    for good, and a sigmoid at the end, because a gate should not.
    """

    def __init__(self, fields: int, reduction: int = 3, residual: bool = False) -> None:
        super().__init__()
        middle = max(1, fields // reduction)
        self.excite = nn.Sequential(Linear(fields, middle), nn.LeakyReLU(), Linear(middle, fields), nn.Sigmoid())
        self.residual = residual

    def forward(self, fields: Tensor) -> Tensor:
        """[rows, F, D] -> [rows, F, D]."""
        gated = fields * self.excite(fields.mean(dim=2)).unsqueeze(2)
        return fields + gated if self.residual else gated


GATES = {"light_se": LightSE, "senet": SENet}
