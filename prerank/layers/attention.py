"""Self-attention over the fields of a row: which fields mean something together."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prerank.layers.linear import Linear


class Interacting(nn.Module):
    """AutoInt's interacting layer (Song et al., CIKM 2019, eq. 5-8).

        a_{m,k} = softmax_k <W_Q e_m, W_K e_k>;   e~_m = sum_k a_{m,k} W_V e_k;   e_m' = relu([e~_m of every head] + W_Res e_m)

    The inner product is not scaled, as in the paper. Without `residual`, W_Res is left out.

    >>> Interacting(4, heads=2, head_width=3)(torch.zeros(5, 7, 4)).shape
    torch.Size([5, 7, 6])
    """

    def __init__(self, width: int, heads: int = 2, head_width: int = 32, residual: bool = True) -> None:
        super().__init__()
        for name, value in (("heads", heads), ("head_width", head_width)):
            if value < 1:
                raise ValueError(f"{name}: must be at least 1; got {value}")
        self.heads = heads
        parts = 4 if residual else 3
        self.project = nn.ModuleList(Linear(width, heads * head_width, bias=False) for _ in range(parts))

    def forward(self, fields: Tensor) -> Tensor:
        """[rows, F, width] -> [rows, F, heads * head_width]."""
        flat = fields.flatten(0, 1)  # [rows * F, width]
        q, k, v, *residual = (project(flat).unflatten(0, fields.shape[:2]) for project in self.project)
        q, k, v = (x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))  # [rows, heads, F, head_width]
        attention = torch.softmax(q @ k.transpose(2, 3), dim=3)  # [rows, heads, F, F]
        mixed = (attention @ v).transpose(1, 2).flatten(2)
        return torch.relu(mixed + residual[0] if residual else mixed)
