"""Dropout that costs little on a CPU: one draw of 64 random bits decides four numbers.

torch draws a double for every number there, which was a quarter of a ranker's training time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

PARTS = 1 << 16  # a number is decided by 16 random bits


class Dropout(nn.Module):
    """x [..] -> in training each number is 0 with probability p and divided by 1 - p otherwise; outside training x itself.

    On a CPU p is taken to the nearest of 65,536 steps, and the scale is that p's. Elsewhere torch's own dropout runs.
    Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 2014. Raises ValueError.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout: must be in [0, 1); got {p}")
        self.p = p
        self.dropped = min(round(p * PARTS), PARTS - 1)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        if x.device.type != "cpu":
            return functional.dropout(x, self.p, True)
        count = x.numel()
        bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:count].view(x.shape)
        return x * (bits >= self.dropped - PARTS // 2).to(x.dtype).mul_(PARTS / (PARTS - self.dropped))

    def extra_repr(self) -> str:
        return f"p={self.p}"
