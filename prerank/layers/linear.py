"""nn.Linear for batches whose number of rows changes from step to step, as that of distinct users and items does.

oneDNN compiles a kernel for every shape it meets, forward and both ways back. A row count that never comes twice made that
compilation as dear as the product itself: three bf16 products of [1500, 300] x [300, 300] took 5.4 ms with the row count
of the step before and 9.6 ms with a new one. So in training, on a CPU, rows are filled up with zeros to a multiple of
ROUND: a few shapes in all. Results are the same; zeros add nothing to any gradient, and their own outputs are cut off.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

ROUND = 64


class Linear(nn.Linear):
    """x W^T + b, as nn.Linear and with its parameters.

    >>> Linear(4, 3)(torch.zeros(2, 4)).shape
    torch.Size([2, 3])
    """

    def forward(self, x: Tensor) -> Tensor:
        """[.., inputs] -> [.., outputs]."""
        uneven = x.dim() == 2 and x.shape[0] % ROUND
        if uneven and self.training and x.device.type == "cpu" and torch.is_grad_enabled():
            return _Rounded.apply(x, self.weight, self.bias)
        return F.linear(x, self.weight, self.bias)


class _Rounded(torch.autograd.Function):
    """The product with rows filled up; under autocast in its type, as F.linear would be."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        ctx.types = x.dtype, weight.dtype, None if bias is None else bias.dtype
        rows, x, weight = x.shape[0], filled(x, dtype), weight.to(dtype)
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, None if bias is None else bias.to(dtype))[:rows]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.types
        whole = filled(gradient, x.dtype)
        return (
            (whole @ weight)[: len(gradient)].to(of_x) if ctx.needs_input_grad[0] else None,
            (whole.t() @ x).to(of_weight) if ctx.needs_input_grad[1] else None,
            gradient.sum(dim=0, dtype=of_bias) if ctx.needs_input_grad[2] else None,
        )


def filled(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows up to the next multiple of ROUND, zeros at the end; cast in the same pass.  # [n, K] -> [m, K]"""
    rows = len(x)
    whole = x.new_empty(-(-rows // ROUND) * ROUND, *x.shape[1:], dtype=dtype)
    whole[:rows].copy_(x)
    whole[rows:].zero_()
    return whole
