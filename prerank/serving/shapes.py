"""The recorded operations that move numbers or rename their shape; see operations.py.

Registers are contiguous: whatever changes the order of numbers copies, whatever only renames their shape does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prerank.serving.program import Program, Register, Untraceable, contiguous


def rename(p: Program, args: Any, kwargs: Any, result: Tensor) -> Register:
    """The same numbers under another shape; also copies and casts that change no number."""
    return p.of(args[0]).renamed(tuple(result.shape))


def cast(p: Program, args: Any, kwargs: Any, result: Tensor) -> Register:
    x = p.of(args[0])
    if x.integer and result.dtype == torch.float32:
        out = p.new(tuple(result.shape))
        p.emit("INT_FLOAT", out.place, x.place, x.size)
        return out
    if result.dtype not in (torch.float32, torch.bool) and not (x.integer and result.dtype in (torch.int32, torch.int64)):
        raise Untraceable(f"a cast to {result.dtype}")
    return x


def _copied(p: Program, x: Register, shape: Sequence[int], strides: Sequence[int], first: int = 0) -> Register:
    """A register of x's numbers from place `first` on, walked by strides; the same memory where that is already in order."""
    if tuple(strides) == contiguous(shape) or x.size == 1 == int(np.prod(shape)):
        return Register(x.place + first, tuple(shape), x.integer) if x.place >= 0 or not first else p.no("a part of a constant")
    out = p.new(tuple(shape), x.integer)
    p.copy(out, 0, contiguous(shape), x, first, strides, shape)
    return out


def expand(p: Program, args: Any, kwargs: Any, result: Tensor) -> Register:
    x, shape = p.of(args[0]), tuple(result.shape)
    return x if x.shape == shape else _copied(p, x, shape, p.broadcast(x, shape))


def transpose(p: Program, args: Any, kwargs: Any, result: Tensor) -> Register:
    x = p.of(args[0])
    axes = list(range(len(x.shape)))
    if len(args) > 2:  # transpose.int(x, a, b)
        axes[args[1]], axes[args[2]] = axes[args[2]], axes[args[1]]
    else:  # permute(x, axes), t(x)
        axes = [a % len(axes) for a in args[1]] if len(args) == 2 else axes[::-1]
    strides = contiguous(x.shape)
    moved = [a for a in axes if x.shape[a] > 1]
    if moved == sorted(moved):  # only dimensions of one number change places
        return x.renamed(tuple(result.shape))
    return _copied(p, x, tuple(result.shape), [strides[a] for a in axes])


def _part(p: Program, x: Register, dim: int, first: int, shape: Sequence[int], step: int = 1) -> Register:
    """The numbers from index `first` of dimension `dim` on; shape still has that dimension."""
    strides = list(contiguous(x.shape))
    offset = first * strides[dim]
    strides[dim] *= step
    if all(n == 1 for n in shape[:dim]) and step == 1:  # in front of it nothing varies: they lie in order
        strides = list(contiguous(shape))
    return _copied(p, x, shape, strides, offset)


def select(p: Program, args: Any, kwargs: Any, result: Tensor) -> Register:
    x, dim = p.of(args[0]), args[1] % args[0].dim()
    shape = [1 if d == dim else n for d, n in enumerate(x.shape)]
    return _part(p, x, dim, args[2] % x.shape[dim], shape).renamed(tuple(result.shape))


def slice_(p: Program, args: Any, kwargs: Any, result: Tensor) -> Register:
    x, dim = p.of(args[0]), (args[1] if len(args) > 1 else 0) % args[0].dim()
    first = args[2] if len(args) > 2 and args[2] is not None else 0
    first = min(first % x.shape[dim] if first < 0 else first, x.shape[dim])
    return _part(p, x, dim, first, tuple(result.shape), args[4] if len(args) > 4 else 1)


def unbind(p: Program, args: Any, kwargs: Any, result: Any) -> list[Register]:
    dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    return [select(p, (args[0], dim, i), {}, part) for i, part in enumerate(result)]


def split(p: Program, args: Any, kwargs: Any, result: Any) -> list[Register]:
    x, dim = p.of(args[0]), (args[2] if len(args) > 2 else kwargs.get("dim", 0)) % args[0].dim()
    firsts = accumulate((part.shape[dim] for part in result), initial=0)
    return [_part(p, x, dim, first, tuple(part.shape)) for first, part in zip(firsts, result, strict=False)]


def join(p: Program, args: Any, kwargs: Any, result: Tensor) -> Register:
    """cat: each part is copied to its place; also stack, whose parts get a dimension of one first."""
    parts, dim = args[0], (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % result.dim()
    if len(parts) == 1:
        return p.of(parts[0]).renamed(tuple(result.shape))
    registers = [p.of(part) for part in parts]
    out = p.new(tuple(result.shape), registers[0].integer)
    strides, first = contiguous(out.shape), 0
    for x in registers:
        shape = x.shape if len(x.shape) == len(out.shape) else (*x.shape[:dim], 1, *x.shape[dim:])
        p.copy(out, first * strides[dim], strides, x, 0, contiguous(shape), shape)
        first += shape[dim]
    return out


def pad(p: Program, args: Any, kwargs: Any, result: Tensor) -> Register:
    """constant_pad_nd: pairs from the last dimension backwards."""
    x, out = p.of(args[0]), p.new(tuple(result.shape))
    if x.integer or any(n < 0 for n in args[1]):
        raise Untraceable("padding of integers, or less than nothing")
    before = [args[1][i] for i in range(0, len(args[1]), 2)][::-1]
    strides = contiguous(out.shape)
    first = sum(n * s for n, s in zip(before, strides[len(strides) - len(before) :], strict=True))
    p.emit("FILL", out.place, p.of(float(args[2]) if len(args) > 2 else 0.0).place, out.size)
    p.copy(out, first, strides, x, 0, contiguous(x.shape), x.shape)
    return out
