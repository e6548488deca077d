"""The program of a recorded tower: operations over registers, as words that _player.c reads.

A register is a run of float32 or int64 numbers: at a place of the scratch memory, or (place < 0) a constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# In the order of the enums of _player.c.
_CODES = ("BINARY", "UNARY", "LINEAR", "PRODUCT", "GATHER", "COPY", "FILL", "REDUCE", "SOFTMAX", "NORMALISE", "SELECT",
          "INT_ADD", "INT_MUL", "INT_COPY", "INT_COMPARE", "INT_FLOAT")  # fmt: skip
_KINDS = (("ADD", "SUB", "MUL", "DIV", "MAX", "MIN", "EQUAL", "UNEQUAL"),
          ("RELU", "TANH", "EXP", "SIGMOID", "SILU", "GELU", "NEG", "SQRT", "RECIPROCAL", "LEAKY", "NOT"),
          ("SUM", "MEAN", "AMAX", "NORM"))  # fmt: skip
_DIMS = 4  # dimensions that the player walks
_LINE = 16  # floats of a cache line; registers start on one, and a layer reads x in whole lines


class Untraceable(Exception):
    """An operation that the player does not know."""


@dataclass(frozen=True, slots=True)
class Register:
    """Numbers in order, and the shape that torch sees in them."""

    place: int
    shape: tuple[int, ...]
    integer: bool = False

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def renamed(self, shape: tuple[int, ...]) -> Register:
        """The same numbers under another shape."""
        return Register(self.place, shape, self.integer)


class Program:
    """Code, constants and the size of the scratch memory; `of` says where a tensor is."""

    def __init__(self) -> None:
        self.code: list[int] = []
        self.constants: list[NDArray[np.float32]] = []
        self.floats = self.ints = 0
        self._registers: dict[int, Register | None] = {}  # by the id of a tensor that depends on the inputs
        self._parameters: dict[Any, Register] = {}
        self._alive: list[Any] = []  # an id is unique only while its object lives

    def emit(self, name: str, *operands: int) -> None:
        """One more operation."""
        self.code += [_CODES.index(name), *(int(o) for o in operands)]

    def kind(self, name: str) -> int:
        """Number of a kind of arithmetic."""
        return next(kinds.index(name) for kinds in _KINDS if name in kinds)

    def new(self, shape: tuple[int, ...], integer: bool = False) -> Register:
        """Room for a result."""
        size = int(np.prod(shape))
        if integer:
            place, self.ints = self.ints, self.ints + size
        else:
            place, self.floats = self.floats, self.floats + -(-size // _LINE) * _LINE
        return Register(place, shape, integer)

    def put(self, tensor: Tensor, register: Register | None) -> None:
        """A tensor was made; None: it was, but the player does not have it."""
        self._alive.append(tensor)
        self._registers[id(tensor)] = register

    def made(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on the inputs."""
        return id(tensor) in self._registers

    def of(self, value: Tensor | float) -> Register:
        """Where a tensor is; one that does not depend on the inputs, and a number, is a constant."""
        if isinstance(value, Tensor) and self.made(value):
            register = self._registers[id(value)]
            return register if register is not None else self.no("a result that serving has no use for")
        if isinstance(value, Tensor):
            return self._constant(id(value), value, value.detach())
        return self._constant(float(value), value, torch.tensor(float(value)))

    def packed(self, weight: Tensor, bias: Tensor | None) -> Register:
        """A layer's bias and weights [n, width] by input, in lines of whole cache lines.  # [1 + width, n filled up]"""
        if self.made(weight) or (bias is not None and self.made(bias)):
            self.no("a layer with computed weights")
        n, width = weight.shape
        # The same weights may come as another view.
        key = ("packed", weight.data_ptr(), weight.stride(), n, width, None if bias is None else bias.data_ptr())
        if key not in self._parameters:
            lines = torch.zeros(1 + width, -(-n // _LINE) * _LINE)
            lines[1:, :n] = weight.t()
            if bias is not None:
                if bias.shape != (n,):
                    self.no("a bias that is no vector of parameters")
                lines[0, :n] = bias
            self._constant(key, (weight, bias), lines)
        return self._parameters[key]

    def copy(self, out: Register, to: int, out_strides: Sequence[int], x: Register, first: int, strides: Sequence[int],
             shape: Sequence[int]) -> None:  # fmt: skip
        """x's numbers from `first` on into out from place `to` on, both walked over `shape`."""
        if x.place < 0 and (first or x.integer):
            self.no("a part of a constant")
        walked, (so, sx) = self.walk(shape, out_strides, strides)
        self.emit("INT_COPY" if x.integer else "COPY", out.place + to, x.place + first, *walked, *so, *sx)

    def broadcast(self, x: Register, shape: Sequence[int]) -> list[int]:
        """Strides of x seen as `shape`: 0 where the same number comes again."""
        missing = len(shape) - len(x.shape)
        return [0] * missing + [0 if n == 1 else s for n, s in zip(x.shape, contiguous(x.shape), strict=True)]

    def walk(self, shape: Sequence[int], *strides: Sequence[int]) -> tuple[list[int], list[list[int]]]:
        """Shape and strides in the player's four dimensions: those that lie in order are walked as one."""
        walked: list[list[int]] = []  # [n, stride of each operand], outermost first
        for n, *steps in zip(shape, *strides, strict=True):
            if n == 1:
                continue
            if walked and all(before == n * own for before, own in zip(walked[-1][1:], steps, strict=True)):
                walked[-1] = [walked[-1][0] * n, *steps]
            else:
                walked.append([n, *steps])
        if len(walked) > _DIMS:
            self.no(f"{len(walked)} dimensions")
        rows = [[1] + [0] * len(strides)] * (_DIMS - len(walked)) + walked
        columns = [list(c) for c in zip(*rows, strict=True)]
        return columns[0], columns[1:]

    def no(self, what: str) -> NoReturn:
        raise Untraceable(what)

    def _constant(self, key: Any, alive: Any, tensor: Tensor) -> Register:
        if key not in self._parameters:
            self._alive.append(alive)
            if tensor.dtype not in (torch.float32, torch.bool):
                self.no(f"a constant of {tensor.dtype}")
            self.constants.append(np.ascontiguousarray(tensor.float().numpy()))
            self._parameters[key] = Register(-len(self.constants), tuple(tensor.shape))
        return self._parameters[key]


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of numbers in order.

    >>> contiguous((2, 3, 4))
    (12, 4, 1)
    """
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))
