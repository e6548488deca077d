"""Cross layers: each multiplies the input once more with what is there, so that layer l holds products of degree l + 1.

    Vector    x_{l+1} = x_0 (x_l . w_l) + b_l + x_l                       Wang et al., "Deep & Cross Network for Ad Click
                                                                          Predictions", ADKDD 2017, eq. 3
    Matrix    x_{l+1} = x_0 * (W_l x_l + b_l) + x_l                       Wang et al., "DCN V2", WWW 2021, eq. 1
    Mixture   x_{l+1} = sum_i G_i(x_l) E_i(x_l) + x_l                     the same, eq. 3-4: W_l of low rank, K experts
              E_i(x)  = x_0 * (U_i g(C_i g(V_i' x)) + b_l)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from prerank.layers.linear import Linear


class CrossVector(nn.Module):
    """DCN's layer: one weight and one bias a number."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width) * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        """[rows, width] twice -> [rows, width]."""
        return x0 * (x @ self.weight).unsqueeze(1) + self.bias + x


class CrossMatrix(nn.Module):
    """DCN-V2's layer with a full matrix."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = Linear(width, width)

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        """[rows, width] twice -> [rows, width]."""
        return x0 * self.linear(x) + x


class CrossMixture(nn.Module):
    """DCN-V2's low-rank layer, a mixture of experts.

    g is tanh and the gates are a softmax over experts (our choice; the paper leaves g open and names sigmoid and softmax);
    a single expert has no gate. Each layer has its own gate (DeepCTR-Torch and torchrec share one over all layers).
    The bias belongs to the layer: as the gates sum to 1, it is added once.

    As it is linear in the gates, E_i's U_i and the sum over experts are one product of all of them.

    rank      r of U, V [width, r] and C [r, r]
    experts   K
    """

    def __init__(self, width: int, rank: int, experts: int = 1) -> None:
        super().__init__()
        self.shape = experts, rank
        self.v = Linear(width, experts * rank, bias=False)  # row i * r + j: V_i's column j
        self.c = nn.Parameter(torch.randn(experts, rank, rank) * rank**-0.5)
        self.u = Linear(experts * rank, width)  # column i * r + j: U_i's column j; its bias is b_l
        self.gate = Linear(width, experts, bias=False) if experts > 1 else None

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        """[rows, width] twice -> [rows, width]."""
        low = torch.tanh(self.v(x)).unflatten(1, self.shape)  # [rows, K, r]
        low = torch.tanh(torch.einsum("pkr,ksr->pks", low, self.c))
        if self.gate is not None:
            low = low * torch.softmax(self.gate(x), dim=1).unsqueeze(2)
        return x0 * self.u(low.flatten(1)) + x


class Cross(nn.Module):
    """A chain of cross layers, each of which also reads the first input."""

    def __init__(self, layers: int, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers: must be at least 1; got {layers}")
        self.layers = nn.ModuleList(make() for _ in range(layers))

    def forward(self, x0: Tensor) -> Tensor:
        """[rows, width] -> [rows, width]."""
        x = x0
        for layer in self.layers:
            x = layer(x0, x)
        return x
