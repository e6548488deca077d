"""log sum exp of all scores of two tables, without the table of scores.

    log_partition(users, items, weights) = sum_u w_u log sum_n exp s_un;   s_un = <u_u, v_n>, or of heads  sum_p max_q <u_up, v_nq>

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
    """sum_u w_u log sum_n exp s_un, a float32 scalar (float64 of doubles).

    users [U, K] and items [N, K], or both of heads, [U, P, K] and [N, Q, K]; weights [U] without a gradient; rows of weight 0 cost nothing.
    Products are made in the tables' own type, sums in float32; the gradient of a largest goes to the first of those that are. Gradients are
    made with the value, and have none of their own.

    >>> log_partition(torch.zeros(2, 3), torch.zeros(4, 3), torch.tensor([1.0, 0.5]))  # 1.5 log 4
    tensor(2.0794)
    """
    if users.ndim == 2:
        users, items = users.unsqueeze(1), items.unsqueeze(1)
    with torch.autocast(users.device.type, enabled=False):
        value: Tensor = _LogPartition.apply(users, items, weights)
    return value


class _LogPartition(torch.autograd.Function):
    """ds_un/du_up = v_nq and ds_un/dv_nq = u_up for the q that is the largest;  d/ds_un = w_u p_un;  p = softmax over n.

    All of it is at hand when the value is.
    """

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, weights: Tensor) -> Tensor:
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        exact = torch.promote_types(users.dtype, torch.float32)
        rows = weights.nonzero().squeeze(1)
        (asked, p), (n, q) = (len(rows), users.shape[1]), items.shape[:2]
        rows, items = torch.cat([rows, rows[:1].expand(-asked % ROUND)]), F.pad(items.transpose(0, 1), (0, 0, 0, -n % ROUND))
        shares = weights.index_select(0, rows).to(exact)
        shares[asked:] = 0.0  # those are the first once more
        table = items.flatten(0, 1)  # [Q N, K]
        of_table = torch.zeros_like(table, dtype=exact)
        of_users = torch.zeros_like(users)
        total = weights.new_zeros((), dtype=exact)
        height = max(ROUND, STRIPE // (p * len(table)) // ROUND * ROUND)
        for some, w in zip(rows.split(height), shares.split(height), strict=True):
            u = users.index_select(0, some).flatten(0, 1)
            products = (u @ table.T).view(len(some), p, q, items.shape[1])
            largest, which = _largest(products)
            s = largest[:, 0, :n].to(exact) if p == 1 else largest[..., :n].sum(dim=1, dtype=exact)
            top = s.amax(dim=1, keepdim=True)
            s = s.sub_(top).exp_()
            sums = s.sum(dim=1, keepdim=True)
            total += (w * (top + sums.log()).squeeze(1)).sum()
            if wanted:
                share = s.mul_(w.unsqueeze(1) / sums).unsqueeze(1)  # [rows, 1, N]
                if which is None:
                    products[:, :, 0, :n] = share
                else:
                    share = share.to(products.dtype)
                    for j in range(q):
                        torch.mul(share, (which[..., :n] == j).to(share.dtype), out=products[:, :, j, :n])
                products[..., n:] = 0.0
                flat = products.flatten(2).flatten(0, 1)
                of_users.index_add_(0, some, (flat @ table).view(len(some), *users.shape[1:]))
                of_table += flat.T @ u
        ctx.save_for_backward(of_users, of_table.view(items.shape)[:, :n].transpose(0, 1).to(items.dtype))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        of_users, of_items = ctx.saved_tensors
        return of_users * gradient.to(of_users.dtype), of_items * gradient.to(of_items.dtype), None


def _largest(products: Tensor) -> tuple[Tensor, Tensor | None]:
    """[.., Q, N] -> the largest of Q [.., N], and which that is (the first, int16); None of one alone."""
    best = products[..., 0, :]
    if products.shape[-2] == 1:
        return best, None
    which = torch.zeros_like(best, dtype=torch.int16)
    for j in range(1, products.shape[-2]):
        other = products[..., j, :]
        torch.maximum(which, (other > best).to(torch.int16).mul_(j), out=which)  # j grows; a masked fill takes twice the time
        best = torch.maximum(best, other)
    return best, which
