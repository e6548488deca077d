"""Losses whose inside grows with the square of the list are computed a few lists at a time, gradient included.

What a relaxed sort of n candidates builds on its way, half a dozen [n, n] matrices, is needed for one list at a time only: each
part's gradient is taken while its matrices still lie in the processor's cache, and then they are dropped. So memory does not grow
with the batch, and nothing is computed twice (as it would be by checkpointing). Lists of like length make a part and what is masked
is left behind, so that padding costs nothing either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SIZE = {"cpu": 1 << 18, "cuda": 1 << 26}  # numbers of one [lists, n, n] matrix of a part: on a CPU, what its cache holds

Values = Callable[..., Tensor | tuple[Tensor, Tensor]]


def by_parts(values: Values, logits: Tensor, keep: Tensor, *others: Tensor) -> Tensor:
    """values(logits, keep, *others), a part of the lists at a time.

    values   [lists, m] each -> [lists] or [lists, V]: numbers of each list alone; the gradient goes to the logits only. m is the most
             candidates that a list of the part has; what is masked stands at the end, where there is any. One that knows its own
             slope returns ([lists], slope [lists, m])
    logits, keep, others   [.., n], lists on the last axis; others may be of any type
    """
    n = logits.shape[-1]
    flat = [x.expand(logits.shape).reshape(-1, n) for x in (logits, keep, *others)]
    found: Tensor = _Parts.apply(values, *flat)
    return found.reshape(*logits.shape[:-1], *found.shape[1:])


class _Parts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Values, logits: Tensor, keep: Tensor, *others: Tensor) -> Tensor:
        learns = ctx.needs_input_grad[1]
        found, slopes = None, None
        for lists, places in _parts(keep):
            value, slope = _value(values, [c[lists].gather(1, places) for c in (logits, keep, *others)], learns)
            if found is None:
                found = value.new_zeros(len(logits), *value.shape[1:])
            found[lists] = value
            if slope is None:
                continue
            if slopes is None:
                slopes = slope.new_zeros(*logits.shape, slope.shape[2])
            slopes[lists.unsqueeze(1), places] = slope
        ctx.save_for_backward(slopes)
        return logits.new_zeros(0) if found is None else found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors  # [lists, n, V]
        none = [None] * (len(ctx.needs_input_grad) - 2)
        return None, None if slopes is None else (slopes * upstream.reshape(len(slopes), 1, -1)).sum(dim=-1), *none


def _value(values: Values, columns: list[Tensor], learns: bool) -> tuple[Tensor, Tensor | None]:
    """A part's values, and their slopes where they are wanted.  # [lists] or [lists, V], [lists, m, V]"""
    logits = columns[0].requires_grad_(learns)
    with torch.set_grad_enabled(learns):
        value = values(*columns)
        if isinstance(value, tuple):
            return value[0].detach(), value[1].detach().unsqueeze(2) if learns else None
        each = value.reshape(len(logits), -1).sum(dim=0).unbind()  # a list's numbers depend on its own logits alone
    if not learns:
        return value, None
    return value.detach(), torch.stack([torch.autograd.grad(v, logits, retain_graph=True)[0] for v in each], dim=2)


def _parts(keep: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Lists, longest first, that make a part, and where their candidates stand: those kept first.  # [lists], [lists, m]"""
    room = SIZE.get(keep.device.type, SIZE["cpu"])
    number, order = keep.sum(dim=1).sort(descending=True)
    places = keep.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices
    lengths, first = number.tolist(), 0
    while first < len(lengths):
        longest = max(lengths[first], 1)
        last = first + max(room // longest**2, 1)
        yield order[first:last], places[order[first:last], :longest]
        first = last
