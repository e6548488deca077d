"""BatchNorm, ReLU and dropout as one operation, for training on a CPU.

    if fits(x, norm):
        y = normed_relu(x, norm, dropped)

Apart they were half of a ranker's training time: eight passes over [rows, width] and a mask to keep. Together, in C (`_normed.c`),
they are two passes forward and two back. The values are those of the three modules, statistics summed more exactly; only the draws of
dropout are others.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

NAME = "prerank.layers._normed"
kernel: Any = importlib.import_module(NAME) if importlib.util.find_spec(NAME) else None
THREADS = 4  # with more of them torch's own operations, which share rows among threads, are the quicker ones
TYPES = (torch.float32, torch.bfloat16)


def fits(x: Tensor, norm: nn.BatchNorm1d) -> bool:
    """Whether the operation can stand for the three: x [rows, width] in training, on a CPU, and the kernel was compiled.

    The kernel reads addresses: whatever is not plain memory of the right kind and width is left to torch.
    """
    return (kernel is not None and norm.training and torch.get_num_threads() <= THREADS and norm.momentum is not None
            and type(x) is Tensor and x.dim() == 2 and x.shape[0] > 1 and x.dtype in TYPES and x.device.type == "cpu"
            and all(type(p) is nn.Parameter and p.dtype == torch.float32 and p.device.type == "cpu" and p.is_contiguous()
                    and len(p) == x.shape[1] for p in (norm.weight, norm.bias)))  # fmt: skip


def normed_relu(x: Tensor, norm: nn.BatchNorm1d, dropped: int = 0) -> Tensor:
    """dropout(relu(norm(x))): [rows, width] -> the same; updates the running statistics as `norm` would.

    dropped   a number is 0 with probability dropped / 65,536, the others are divided by the chance that they stay. What is drawn
              follows from torch's generator; torch's own dropout, with more threads or without the kernel, draws others.
    """
    key = int(torch.empty((), dtype=torch.int64, device="cpu").random_()) if dropped else 0
    y, mean, var = _NormedRelu.apply(x, norm.weight, norm.bias, norm.eps, dropped, key)
    if norm.track_running_stats:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        assert norm.momentum is not None
        norm.num_batches_tracked.add_(1)
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(var * (len(x) / (len(x) - 1)), norm.momentum)
    assert isinstance(y, Tensor)
    return y


class _NormedRelu(torch.autograd.Function):
    """y, and the batch's mean and variance (of the rows, not corrected)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, dropped: int, key: int) -> tuple[Tensor, Tensor, Tensor]:
        x = x.contiguous()
        y = torch.empty_like(x)
        mean, var, inverse = torch.empty(3, x.shape[1], dtype=torch.float32, device="cpu").unbind()
        kernel.forward(*_addresses(x, y, weight, bias, mean, var, inverse), *x.shape, x.dtype == torch.bfloat16, eps, dropped, key)
        ctx.save_for_backward(x, y, weight, mean, inverse)
        ctx.dropped = dropped
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        x, y, weight, mean, inverse = ctx.saved_tensors
        gradient = gradient.to(x.dtype).contiguous()
        of_x, of_weight, of_bias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
        kernel.backward(*_addresses(gradient, x, y, weight, mean, inverse, of_x, of_weight, of_bias), *x.shape, x.dtype == torch.bfloat16,
                        ctx.dropped)  # fmt: skip
        return of_x, of_weight, of_bias, None, None, None


def _addresses(*tensors: Tensor) -> tuple[int, ...]:
    return tuple(t.data_ptr() for t in tensors)
