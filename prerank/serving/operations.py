"""What each recorded torch operation is for the player, for one row; see tape.py and _player.c.

An entry of OPERATIONS gets the program and the operation's arguments, keyword arguments and result as torch saw them, and returns
the register of the result (a list of them where torch gave several). In-place operations give a new register: an older view of the
changed tensor that is read later would be wrong, and the comparison with torch finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prerank.serving.program import Program, Register, Untraceable
from prerank.serving.shapes import cast, expand, join, pad, rename, select, slice_, split, transpose, unbind

Emit = Callable[[Program, tuple[Any, ...], dict[str, Any], Any], Any]
aten = torch.ops.aten


def _binary(kind: str) -> Emit:
    """x op y, either of which may be a number; alpha (of add, sub) scales y."""

    def emit(p: Program, args: Any, kwargs: dict[str, Any], result: Tensor) -> Register:
        x, y, alpha = args[0], args[1], kwargs.get("alpha", 1)
        if isinstance(x, Tensor) and not isinstance(y, Tensor) and p.of(x).integer:
            return _integer(p, kind, p.of(x), y, alpha)
        left, right = p.of(x), p.of(y)
        if left.integer or right.integer:
            raise Untraceable("arithmetic of integers")
        if alpha != 1:
            right = _two(p, "MUL", right, p.of(alpha), right.shape)
        return _two(p, kind, left, right, tuple(result.shape))

    return emit


def _two(p: Program, kind: str, a: Register, b: Register, shape: tuple[int, ...]) -> Register:
    out = p.new(shape)
    walked, (sa, sb) = p.walk(shape, p.broadcast(a, shape), p.broadcast(b, shape))
    p.emit("BINARY", out.place, a.place, b.place, p.kind(kind), *walked, *sa, *sb)
    return out


def _integer(p: Program, kind: str, x: Register, number: Any, alpha: Any) -> Register:
    if kind not in ("ADD", "SUB", "MUL") or not isinstance(number, int) or not isinstance(alpha, int):
        raise Untraceable("arithmetic of integers")
    if kind != "MUL" and number == 0:
        return x
    out = p.new(x.shape, integer=True)
    p.emit("INT_MUL" if kind == "MUL" else "INT_ADD", out.place, x.place, {"MUL": 1, "ADD": alpha, "SUB": -alpha}[kind] * number, x.size)
    return out


def _square(p: Program, args: Any, kwargs: Any, result: Tensor) -> Register:
    if args[1] != 2:
        raise Untraceable(f"a power of {args[1]}")
    return _two(p, "MUL", p.of(args[0]), p.of(args[0]), tuple(result.shape))


def _compare(equal: bool) -> Emit:
    def emit(p: Program, args: Any, kwargs: Any, result: Tensor) -> Register:
        x = p.of(args[0])
        if not x.integer:
            return _two(p, "EQUAL" if equal else "UNEQUAL", x, p.of(float(args[1])), x.shape)
        if not isinstance(args[1], int):
            raise Untraceable("a comparison of integers with a float")
        out = p.new(x.shape)
        p.emit("INT_COMPARE", out.place, x.place, args[1], int(equal), x.size)
        return out

    return emit


def _unary(kind: str, parameter: Callable[[Any], float] = lambda args: 0.0) -> Emit:
    def emit(p: Program, args: Any, kwargs: Any, result: Tensor) -> Register:
        x, out = p.of(args[0]), p.new(tuple(result.shape))
        if x.integer:
            raise Untraceable(f"{kind.lower()} of integers")
        p.emit("UNARY", out.place, x.place, p.kind(kind), x.size, p.of(parameter(args)).place)
        return out

    return emit


def _clamp(p: Program, args: Any, kwargs: dict[str, Any], result: Tensor) -> Register:
    low = args[1] if len(args) > 1 else kwargs.get("min")
    high = args[2] if len(args) > 2 else kwargs.get("max")
    x = p.of(args[0])
    if x.integer:
        raise Untraceable("clamp of integers")
    for kind, limit in (("MAX", low), ("MIN", high)):
        x = x if limit is None else _two(p, kind, x, p.of(limit), x.shape)
    return x


def _embedding(p: Program, args: Any, kwargs: Any, result: Tensor) -> Register:
    table, rows, out = p.of(args[0]), p.of(args[1]), p.new(tuple(result.shape))
    p.emit("GATHER", out.place, table.place, rows.place, rows.size, table.shape[1], table.shape[0])
    return out


def _layer(p: Program, x: Register, weight: Tensor, bias: Tensor | None, result: Tensor) -> Register:
    """x W' + b; weight [n, width]."""
    n, width = weight.shape
    out, packed = p.new(tuple(result.shape)), p.packed(weight, bias)
    room = p.new((packed.shape[1] + width,))
    p.emit("LINEAR", out.place, packed.place, x.place, x.size // width, n, packed.shape[1], width, room.place)
    return out


def _linear(p: Program, args: Any, kwargs: Any, result: Tensor) -> Register:
    return _layer(p, p.of(args[0]), args[1], args[2] if len(args) > 2 else None, result)


def _addmm(p: Program, args: Any, kwargs: dict[str, Any], result: Tensor) -> Register:
    if kwargs or p.made(args[2]):
        raise Untraceable("addmm with alpha, beta or a product that is no layer")
    return _layer(p, p.of(args[1]), args[2].t(), args[0], result)


def _product(p: Program, args: Any, kwargs: Any, result: Tensor) -> Register:
    """mm, bmm: a layer when the right side is a parameter."""
    a, right = p.of(args[0]), args[1]
    if right.dim() == 2 and not p.made(right):
        return _layer(p, a, right.t(), None, result)
    b, out = p.of(right), p.new(tuple(result.shape))
    batch = result.shape[0] if result.dim() == 3 else 1
    p.emit("PRODUCT", out.place, a.place, b.place, batch, result.shape[-2], a.shape[-1], result.shape[-1])
    return out


def _run_of(dims: Any, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Dimensions that lie beside each other as (numbers before, in, behind)."""
    axes = sorted(d % len(shape) for d in ([dims] if isinstance(dims, int) else dims)) if dims or dims == 0 else list(range(len(shape)))
    if axes != list(range(axes[0], axes[-1] + 1)):
        raise Untraceable("a reduction over dimensions apart")
    outer, n, inner = shape[: axes[0]], shape[axes[0] : axes[-1] + 1], shape[axes[-1] + 1 :]
    return int(np.prod(outer)), int(np.prod(n)), int(np.prod(inner))


def _reduce(kind: str) -> Emit:
    def emit(p: Program, args: Any, kwargs: Any, result: Tensor) -> Register:
        x, out = p.of(args[0]), p.new(tuple(result.shape))
        if x.integer:
            raise Untraceable("a sum of integers")
        p.emit("REDUCE", out.place, x.place, p.kind(kind), *_run_of(args[1] if len(args) > 1 else kwargs.get("dim"), x.shape))
        return out

    return emit


def _norm(p: Program, args: Any, kwargs: Any, result: Tensor) -> Register:
    if len(args) > 1 and args[1] != 2:
        raise Untraceable(f"a norm of order {args[1]}")
    return _reduce("NORM")(p, (args[0], args[2] if len(args) > 2 else None), {}, result)


def _softmax(p: Program, args: Any, kwargs: Any, result: Tensor) -> Register:
    x, out = p.of(args[0]), p.new(tuple(result.shape))
    p.emit("SOFTMAX", out.place, x.place, *_run_of(args[1], x.shape))
    return out


def _layer_norm(p: Program, args: Any, kwargs: Any, result: Any) -> list[Register | None]:
    """native_layer_norm over the last dimension; its other two results are for training."""
    x, shape, gamma, beta, eps = p.of(args[0]), args[1], args[2], args[3], args[4]
    if len(shape) != 1:
        raise Untraceable("layer normalisation of several dimensions")
    out, n = p.new(x.shape), int(shape[0])
    scale, shift = p.of(torch.ones(n) if gamma is None else gamma), p.of(torch.zeros(n) if beta is None else beta)
    p.emit("NORMALISE", out.place, x.place, scale.place, shift.place, p.of(float(eps)).place, x.size // n, n)
    return [out, None, None]


def _masked_fill(p: Program, args: Any, kwargs: Any, result: Tensor) -> Register:
    shape = tuple(result.shape)
    x, mask, out = p.of(args[0]), p.of(args[1]), p.new(shape)
    walked, (sx, sm) = p.walk(shape, p.broadcast(x, shape), p.broadcast(mask, shape))
    p.emit("SELECT", out.place, x.place, mask.place, p.of(float(args[2])).place, *walked, *sx, *sm)
    return out


def _slope(args: Any) -> float:
    return float(args[1]) if len(args) > 1 else 0.01


OPERATIONS: dict[Any, Emit] = {
    aten.view.default: rename, aten._unsafe_view.default: rename, aten.unsqueeze.default: rename, aten.squeeze.dim: rename,
    aten.reshape.default: rename, aten.squeeze.default: rename, aten.squeeze.dims: rename,
    aten.clone.default: rename, aten.detach.default: rename, aten.alias.default: rename, aten.contiguous.default: rename,
    aten.expand.default: expand, aten._to_copy.default: cast,
    aten.t.default: transpose, aten.transpose.int: transpose, aten.permute.default: transpose,
    aten.add.Tensor: _binary("ADD"), aten.sub.Tensor: _binary("SUB"), aten.mul.Tensor: _binary("MUL"), aten.div.Tensor: _binary("DIV"),
    aten.add.Scalar: _binary("ADD"), aten.mul.Scalar: _binary("MUL"), aten.add_.Tensor: _binary("ADD"), aten.mul_.Tensor: _binary("MUL"),
    aten.maximum.default: _binary("MAX"), aten.pow.Tensor_Scalar: _square,
    aten.ne.Scalar: _compare(equal=False), aten.eq.Scalar: _compare(equal=True),
    aten.relu.default: _unary("RELU"), aten.relu_.default: _unary("RELU"),
    aten.tanh.default: _unary("TANH"), aten.exp.default: _unary("EXP"),
    aten.sigmoid.default: _unary("SIGMOID"), aten.silu.default: _unary("SILU"), aten.silu_.default: _unary("SILU"),
    aten.gelu.default: _unary("GELU"), aten.neg.default: _unary("NEG"), aten.sqrt.default: _unary("SQRT"),
    aten.reciprocal.default: _unary("RECIPROCAL"), aten.bitwise_not.default: _unary("NOT"), aten.logical_not.default: _unary("NOT"),
    aten.leaky_relu.default: _unary("LEAKY", _slope), aten.leaky_relu_.default: _unary("LEAKY", _slope),
    aten.clamp.default: _clamp, aten.clamp_min.default: _clamp,
    aten.cat.default: join, aten.stack.default: join, aten.embedding.default: _embedding,
    aten.select.int: select, aten.slice.Tensor: slice_, aten.unbind.int: unbind,
    aten.split.Tensor: split, aten.split_with_sizes.default: split,
    aten.linear.default: _linear, aten.addmm.default: _addmm, aten.mm.default: _product, aten.bmm.default: _product,
    aten._softmax.default: _softmax, aten.sum.dim_IntList: _reduce("SUM"), aten.mean.dim: _reduce("MEAN"),
    aten.amax.default: _reduce("AMAX"),
    aten.linalg_vector_norm.default: _norm, aten.native_layer_norm.default: _layer_norm,
    aten.masked_fill.Scalar: _masked_fill, aten.constant_pad_nd.default: pad,
}  # fmt: skip
