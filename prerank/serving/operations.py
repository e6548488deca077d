"""What each recorded torch operation is in numpy, for one row; see tape.py.

An entry gets the operation's arguments, keyword arguments and result as torch saw them, and returns a function of the
tensor arguments alone (as numpy arrays, in order). Shapes never change between plays, so reshapes are to known shapes.
In-place operations are played as ones that return a new array: arrays may share memory with parameters. Where an older view
of the changed tensor is read later that is wrong, and the comparison with torch finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

Maker = Callable[[tuple[Any, ...], dict[str, Any], Any], Callable[..., Any]]
aten = torch.ops.aten

DTYPES = {torch.float32: np.float32, torch.float64: np.float64, torch.int64: np.int64, torch.int32: np.int32, torch.bool: np.bool_}


def _reshape(args: Any, kwargs: Any, result: Tensor) -> Callable[..., Any]:
    shape = tuple(result.shape)
    return same if shape == tuple(args[0].shape) else (lambda x: x.reshape(shape))


def same(x: Any) -> Any:
    """The tape takes no step for it."""
    return x


def _same(args: Any, kwargs: Any, result: Any) -> Callable[..., Any]:
    return same


def _expand(args: Any, kwargs: Any, result: Tensor) -> Callable[..., Any]:
    if tuple(args[0].shape) == tuple(result.shape):
        return same
    ones: Any = np.ones(tuple(result.shape), DTYPES[result.dtype])
    return lambda x: x * ones  # broadcast_to takes five times as long


def _cast(args: Any, kwargs: dict[str, Any], result: Tensor) -> Callable[..., Any]:
    """int32 stays as it is for int64: numbers beside it are int64, so sums are too, and rows may be gathered by either."""
    dtype = DTYPES[result.dtype]
    if result.dtype == args[0].dtype or (args[0].dtype, result.dtype) == (torch.int32, torch.int64):
        return same
    return lambda x: x.astype(dtype)


def _transpose(args: Any, kwargs: Any, result: Tensor) -> Callable[..., Any]:
    axes = list(range(args[0].dim()))
    if len(args) > 2:  # transpose.int(x, a, b)
        axes[args[1]], axes[args[2]] = axes[args[2]], axes[args[1]]
    elif len(args) == 2:  # permute(x, axes)
        axes = [a % len(axes) for a in args[1]]
    else:  # t(x)
        axes = axes[::-1]
    return lambda x: x.transpose(axes)


def _binary(function: Callable[[Any, Any], Any]) -> Maker:
    """x op y, where y may be a number. alpha (of add, sub) scales y."""

    def make(args: Any, kwargs: dict[str, Any], result: Any) -> Callable[..., Any]:
        x, y = args[:2]
        alpha = kwargs.get("alpha", 1)
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            return function if alpha == 1 else (lambda a, b: function(a, alpha * b))
        dtype = DTYPES[(x if isinstance(x, Tensor) else y).dtype]
        if isinstance(x, Tensor):
            if function is np.add and y == 0:
                return same
            right = _scalar(alpha * y, dtype)
            return lambda a: function(a, right)
        left = _scalar(x, dtype)
        return lambda b: function(left, b)

    return make


def _scalar(value: Any, dtype: Any) -> Any:
    """A number as torch would see it beside an array of dtype: 0.5 beside integers stays a float32."""
    return np.float32(value) if isinstance(value, float) and not np.issubdtype(dtype, np.floating) else dtype(value)


def _unary(function: Callable[[Any], Any]) -> Maker:
    return lambda args, kwargs, result: function


def _clamp(args: Any, kwargs: dict[str, Any], result: Any) -> Callable[..., Any]:
    low = args[1] if len(args) > 1 else kwargs.get("min")
    high = args[2] if len(args) > 2 else kwargs.get("max")

    def play(x: Any) -> Any:
        if low is not None:
            x = np.maximum(x, x.dtype.type(low))
        return x if high is None else np.minimum(x, x.dtype.type(high))

    return play


def _join(args: Any, kwargs: dict[str, Any], result: Tensor) -> Callable[..., Any]:
    """cat"""
    axis = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % result.dim()
    return same if len(args[0]) == 1 else (lambda *parts: np.concatenate(parts, axis))


def _stack(args: Any, kwargs: dict[str, Any], result: Tensor) -> Callable[..., Any]:
    axis = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % result.dim()
    shape = tuple(result.shape)
    if args[0][0].dim() == 1 and result.shape[0] == 1:  # one number each: laid end to end they are stacked
        return lambda *parts: np.concatenate(parts).reshape(shape)
    if all(n == 1 for n in shape[:axis]):  # in front of the axis nothing varies: likewise
        return lambda *parts: np.concatenate([p.ravel() for p in parts]).reshape(shape)
    return lambda *parts: np.stack(parts, axis)


def _embedding(args: Any, kwargs: Any, result: Any) -> Callable[..., Any]:
    return lambda table, rows: table.take(rows, 0)


def _select(args: Any, kwargs: Any, result: Any) -> Callable[..., Any]:
    index = (slice(None),) * (args[1] % args[0].dim()) + (args[2],)
    return lambda x: x[index]


def _slice(args: Any, kwargs: dict[str, Any], result: Any) -> Callable[..., Any]:
    dim, start, end, step = (list(args[1:]) + [0, None, None, 1][len(args) - 1 :])[:4]
    index = (slice(None),) * (dim % args[0].dim()) + (slice(start, end, step),)
    return lambda x: x[index]


def _unbind(args: Any, kwargs: dict[str, Any], result: Any) -> Callable[..., Any]:
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % args[0].dim()
    indices = [(slice(None),) * dim + (i,) for i in range(len(result))]
    return lambda x: [x[i] for i in indices]


def _split(args: Any, kwargs: dict[str, Any], result: Any) -> Callable[..., Any]:
    dim = (args[2] if len(args) > 2 else kwargs.get("dim", 0)) % args[0].dim()
    ends = np.cumsum([part.shape[dim] for part in result]).tolist()
    indices = [(slice(None),) * dim + (slice(a, b),) for a, b in zip([0, *ends], ends, strict=False)]
    return lambda x: [x[i] for i in indices]


def _linear(args: Any, kwargs: Any, result: Any) -> Callable[..., Any]:
    if len(args) > 2 and args[2] is not None:
        return lambda x, w, b: x.dot(w.T) + b
    return lambda x, w: x.dot(w.T)


def _addmm(args: Any, kwargs: dict[str, Any], result: Any) -> Callable[..., Any]:
    if kwargs:
        raise KeyError("addmm with alpha or beta")
    return lambda b, x, w: x.dot(w) + b  # dot: half a microsecond less than @


def _softmax(args: Any, kwargs: Any, result: Any) -> Callable[..., Any]:
    dim = args[1]

    def play(x: Any) -> Any:
        e = np.exp(x - np.maximum.reduce(x, dim, keepdims=True))
        return e / np.add.reduce(e, dim, keepdims=True)

    return play


def _reduce(function: Any, mean: bool = False) -> Maker:
    """sum, mean, amax over dimensions."""

    def make(args: Any, kwargs: dict[str, Any], result: Any) -> Callable[..., Any]:
        given = args[1] if len(args) > 1 else kwargs.get("dim")
        axes = tuple(range(args[0].dim())) if not given and given != 0 else tuple(np.atleast_1d(given).tolist())
        keep = args[2] if len(args) > 2 else kwargs.get("keepdim", False)
        if not mean:
            return lambda x: function(x, axes, keepdims=keep)
        scale = np.float32(1 / np.prod([args[0].shape[a] for a in axes]))
        return lambda x: function(x, axes, keepdims=keep) * scale

    return make


def _norm(args: Any, kwargs: dict[str, Any], result: Any) -> Callable[..., Any]:
    """linalg_vector_norm of order 2."""
    order, dim = (args[1] if len(args) > 1 else 2), tuple(args[2])
    keep = args[3] if len(args) > 3 else kwargs.get("keepdim", False)
    if order != 2:
        raise KeyError("norm of another order")
    if len(dim) == 1 and dim[0] % args[0].dim() == args[0].dim() - 1 and keep:  # heads of length 1: no product is stored
        return lambda x: np.sqrt(np.einsum("...k,...k->...", x, x))[..., None]
    return lambda x: np.sqrt(np.add.reduce(x * x, dim, keepdims=keep))


def _masked_fill(args: Any, kwargs: Any, result: Any) -> Callable[..., Any]:
    value = np.float32(args[2])
    return lambda x, mask: np.where(mask, value, x)


def _pad(args: Any, kwargs: Any, result: Any) -> Callable[..., Any]:
    """constant_pad_nd: pairs from the last dimension backwards."""
    pairs = [(args[1][i], args[1][i + 1]) for i in range(0, len(args[1]), 2)][::-1]
    widths = [(0, 0)] * (args[0].dim() - len(pairs)) + pairs
    value = args[2] if len(args) > 2 else 0
    return partial(np.pad, pad_width=widths, constant_values=value)


def _relu(x: Any) -> Any:
    return np.maximum(x, np.float32(0))


def _slope(args: Any, kwargs: Any, result: Any) -> Callable[..., Any]:
    """leaky_relu"""
    slope = np.float32(args[1] if len(args) > 1 else 0.01)
    return lambda x: np.where(x > 0, x, slope * x)


def _sigmoid(x: Any) -> Any:
    return np.float32(0.5) * (np.float32(1) + np.tanh(np.float32(0.5) * x))


OPERATIONS: dict[Any, Maker] = {
    aten.view.default: _reshape, aten._unsafe_view.default: _reshape, aten.unsqueeze.default: _reshape, aten.squeeze.dim: _reshape,
    aten.reshape.default: _reshape, aten.squeeze.default: _reshape, aten.squeeze.dims: _reshape,
    aten.clone.default: _same, aten.detach.default: _same, aten.alias.default: _same, aten.contiguous.default: _same,
    aten.expand.default: _expand, aten._to_copy.default: _cast,
    aten.t.default: _transpose, aten.transpose.int: _transpose, aten.permute.default: _transpose,
    aten.add.Tensor: _binary(np.add), aten.sub.Tensor: _binary(np.subtract), aten.mul.Tensor: _binary(np.multiply),
    aten.div.Tensor: _binary(np.divide), aten.ne.Scalar: _binary(np.not_equal), aten.eq.Scalar: _binary(np.equal),
    aten.add.Scalar: _binary(np.add), aten.mul.Scalar: _binary(np.multiply), aten.maximum.default: _binary(np.maximum),
    aten.relu.default: _unary(_relu), aten.relu_.default: _unary(_relu), aten.silu_.default: _unary(lambda x: x * _sigmoid(x)),
    aten.add_.Tensor: _binary(np.add), aten.mul_.Tensor: _binary(np.multiply), aten.leaky_relu_.default: _slope,
    aten.leaky_relu.default: _slope, aten.tanh.default: _unary(np.tanh), aten.exp.default: _unary(np.exp),
    aten.sigmoid.default: _unary(_sigmoid), aten.silu.default: _unary(lambda x: x * _sigmoid(x)), aten.neg.default: _unary(np.negative),
    aten.reciprocal.default: _unary(np.reciprocal),
    aten.sqrt.default: _unary(np.sqrt), aten.bitwise_not.default: _unary(np.invert), aten.logical_not.default: _unary(np.logical_not),
    aten.clamp.default: _clamp, aten.clamp_min.default: _clamp,
    aten.cat.default: _join, aten.stack.default: _stack, aten.embedding.default: _embedding,
    aten.select.int: _select, aten.slice.Tensor: _slice, aten.unbind.int: _unbind,
    aten.split.Tensor: _split, aten.split_with_sizes.default: _split,
    aten.linear.default: _linear, aten.addmm.default: _addmm, aten.mm.default: _binary(np.matmul), aten.bmm.default: _binary(np.matmul),
    aten._softmax.default: _softmax, aten.sum.dim_IntList: _reduce(np.add.reduce), aten.mean.dim: _reduce(np.add.reduce, mean=True),
    aten.amax.default: _reduce(np.maximum.reduce), aten.linalg_vector_norm.default: _norm,
    aten.masked_fill.Scalar: _masked_fill, aten.constant_pad_nd.default: _pad,
}  # fmt: skip
