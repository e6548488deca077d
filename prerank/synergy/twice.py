"""The two products of a layer in its cycle as one operation of autograd: what CAS does in training, most of the time.

    z = relu(x W' + b)     e = 2 sigmoid(z W_e' + b_e)     x~ = x e     y = x~ W' + b

The same numbers as the four steps written out. It is there for what autograd would do beside the products: rows are filled up once
and not for each product (layers/linear.py), the gradients of x and of W are summed by the products themselves, and less is
kept for the way back.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from prerank.layers.linear import filled


class Twice(torch.autograd.Function):
    """x [n, d_in], W [d_out, d_in], b, W_e [d_in, d_out], b_e -> y [n, d_out]; see the module's first lines.

    gate_after   whether there is a ReLU between z and its use
    detach       no gradient from e to z
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, excite: Tensor, offset: Tensor, gate_after: bool,
                detach: bool) -> Tensor:  # fmt: skip
        ctx.dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        ctx.of_x, ctx.of_weight, ctx.gate_after, ctx.detach, ctx.rows = x.dtype, weight.dtype, gate_after, detach, len(x)
        x = filled(x, ctx.dtype)
        w, b, we, be = (t.to(ctx.dtype) for t in (weight, bias, excite, offset))
        z = F.linear(x, w, b)
        z = z.relu_() if gate_after else z
        e = F.linear(z, we, be).sigmoid_().mul_(2)
        weighed = x * e
        ctx.save_for_backward(x, z, e, weighed, w, we)
        return F.linear(weighed, w, b)[: ctx.rows]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, z, e, weighed, w, we = ctx.saved_tensors
        dy = filled(gradient, ctx.dtype)
        dweighed = dy @ w  # [m, d_in]
        dx = dweighed * e
        de = dx * x
        de.addcmul_(de, e, value=-0.5)  # before the sigmoid: 2 s' = e (1 - e / 2)
        dw, db = dy.t() @ weighed, dy.sum(0)
        if not ctx.detach:
            dz = de @ we  # [m, d_out]
            if ctx.gate_after:
                dz = torch.ops.aten.threshold_backward(dz, z, 0)
            dw.addmm_(dz.t(), x)
            db += dz.sum(0)
            dx.addmm_(dz, w)
        parameters = (g.to(ctx.of_weight) for g in (dw, db, de.t() @ z, de.sum(0)))
        return dx[: ctx.rows].to(ctx.of_x), *parameters, None, None
