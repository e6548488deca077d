"""log sum exp of all products of two tables, without the table of products.

    log_partition(users, items, weights) = sum_u w_u log sum_n exp <u_u, v_n>

Contrastive losses want it of every user of a batch against every item of it: at 2,500 x 1,600 that is four passes over 16 MB each
way, more than both towers cost. Here a stripe of rows is made, turned into its share of the value and of both gradients while it lies in
the cache, and forgotten: memory is a stripe's, and the products are made once.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

STRIPE = 1 << 19  # products at a time: 2 MiB of fp32
# Rows and items are filled up to a multiple of it: oneDNN compiles a kernel for every shape, and theirs changes with every batch.
ROUND = 64


def log_partition(users: Tensor, items: Tensor, weights: Tensor) -> Tensor:
    """sum_u w_u log sum_n exp <u_u, v_n>, a float32 scalar (float64 of doubles).

    users [U, K], items [N, K], weights [U] without a gradient; rows of weight 0 cost nothing. Products are made in the tables' own type,
    sums in float32. Gradients are made with the value, and have none of their own.

    >>> log_partition(torch.zeros(2, 3), torch.zeros(4, 3), torch.tensor([1.0, 0.5]))  # 1.5 log 4
    tensor(2.0794)
    """
    with torch.autocast(users.device.type, enabled=False):
        value: Tensor = _LogPartition.apply(users, items, weights)
    return value


class _LogPartition(torch.autograd.Function):
    """d/du_u = w_u sum_n p_un v_n;  d/dv_n = sum_u w_u p_un u_u;  p = softmax over n. Both are at hand when the value is."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, weights: Tensor) -> Tensor:
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        exact = torch.promote_types(users.dtype, torch.float32)
        rows = weights.nonzero().squeeze(1)
        asked, n = len(rows), len(items)
        rows, items = torch.cat([rows, rows[:1].expand(-asked % ROUND)]), F.pad(items, (0, 0, 0, -n % ROUND))
        shares = weights.index_select(0, rows).to(exact)
        shares[asked:] = 0.0  # those are the first once more
        of_items = torch.zeros_like(items, dtype=exact)
        of_users = torch.zeros_like(users)
        total = weights.new_zeros((), dtype=exact)
        height = max(ROUND, STRIPE // len(items) // ROUND * ROUND)
        for some, w in zip(rows.split(height), shares.split(height), strict=True):
            u = users.index_select(0, some)
            products = u @ items.T
            s = products[:, :n].to(exact)
            top = s.amax(dim=1, keepdim=True)
            s = s.sub_(top).exp_()
            sums = s.sum(dim=1, keepdim=True)
            total += (w * (top + sums.log()).squeeze(1)).sum()
            if wanted:
                products[:, :n] = s.mul_(w.unsqueeze(1) / sums)
                products[:, n:] = 0.0
                of_users.index_add_(0, some, products @ items)
                of_items += products.T @ u
        ctx.save_for_backward(of_users, of_items[:n].to(items.dtype))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        of_users, of_items = ctx.saved_tensors
        return of_users * gradient.to(of_users.dtype), of_items * gradient.to(of_items.dtype), None
