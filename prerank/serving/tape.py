"""The user tower recorded once and played back in C: at batch 1 its products take 20 us and torch's dispatch 150.

A model in eval mode, asked for one row, always runs the same operations on the same shapes. So they are recorded while
torch runs it, parameters become constants, and playing them back is one call of C. An operation that `operations.py` does not
know, a tape that does not say what the model says, or no C extension means: no tape, torch goes on.

    tape = record(encode, columns)           encode: columns of one row -> Representation; None when it cannot be recorded
    vector, bias = tape(columns)             the same, flat [sum Hu K], and bias [T] or None, from numpy columns
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from prerank.batch import Columns, Representation
from prerank.serving.operations import OPERATIONS
from prerank.serving.program import Program, Register, Untraceable

Array = NDArray[Any]
NAME = "prerank.serving._player"
player: Any = importlib.import_module(NAME) if importlib.util.find_spec(NAME) else None


class Tape:
    """A recorded tower; see the module's first lines."""

    def __init__(self, program: Program, inputs: dict[str, Register], vector: Register, bias: Register | None) -> None:
        self.inputs = tuple(inputs)
        self._width, self._numbers = vector.size, vector.size + (bias.size if bias else 0)
        spec = [[int(not r.integer), r.size, r.place] for r in inputs.values()]
        parts = [[r.place, r.size] for r in (vector, bias) if r is not None]
        slack = 16  # floats behind the last register, which a layer may read (times zero)
        self._player = player.Player(np.array(program.code, np.int64), program.constants, np.array(spec, np.int64).reshape(-1, 3),
                                     program.floats + slack, program.ints, np.array(parts, np.int64))  # fmt: skip

    def __call__(self, columns: dict[str, Array]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Columns of one row [1, ...] -> vector [sum Hu K], bias [T] or None. Safe to call from several threads."""
        out = np.empty(self._numbers, np.float32)
        given = tuple([columns[name] for name in self.inputs])
        self._player.play(given, out)
        return (out, None) if self._numbers == self._width else (out[: self._width], out[self._width :])

    def __repr__(self) -> str:
        return f"<Tape of {self._numbers} numbers>"


def record(encode: Callable[[Columns], Representation], samples: Columns, tolerance: float = 1e-5) -> Tape | None:
    """The tape of `encode`, or None when it has an unknown operation or says something else than torch for some sample.

    samples     columns of a few rows [n, ...]; the first is recorded, all are compared, to tolerance x max(1, |value|)
    """
    if player is None:
        return None
    rows = [{name: column[i : i + 1] for name, column in samples.items()} for i in range(len(next(iter(samples.values()))))]
    program = Program()
    try:
        inputs = {name: _input(program, column) for name, column in rows[0].items()}
        with torch.no_grad(), _Recorder(program):
            said = encode(rows[0])
            flat = said.flat()
        tape = Tape(program, inputs, program.of(flat), None if said.bias is None else program.of(said.bias))
    except Untraceable:
        return None
    with torch.no_grad():
        for row in rows:
            expected = encode(row)
            vector, bias = tape({name: column.numpy() for name, column in row.items()})
            if not _near(vector, expected.flat()[0], tolerance):
                return None
            if expected.bias is not None and not _near(bias, expected.bias[0], tolerance):
                return None
    return tape


def warm() -> None:
    """Record something small: torch imports 800 modules the first time, and keeps what it met then for good."""
    weight = torch.eye(2)
    record(lambda columns: Representation((columns["x"].mm(weight).unsqueeze(1),)), {"x": torch.zeros(1, 2)})


class _Recorder(TorchDispatchMode):
    """Writes every operation that depends on the inputs; what depends on parameters alone is a constant."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        program = self.program
        if any(program.made(t) for t in _tensors(args)):
            if func not in OPERATIONS:
                raise Untraceable(str(func))
            registers = OPERATIONS[func](program, args, kwargs or {}, result)
            if isinstance(result, Tensor):
                program.put(result, registers)
            else:
                for part, register in zip(result, registers, strict=True):
                    program.put(part, register)
        return result


def _input(program: Program, column: Tensor) -> Register:
    if column.dtype not in (torch.int32, torch.float32):
        raise Untraceable(f"a column of {column.dtype}")
    register = program.new(tuple(column.shape), integer=column.dtype == torch.int32)
    program.put(column, register)
    return register


def _tensors(args: Any) -> list[Tensor]:
    """Tensors among arguments, lists of them opened, in order."""
    found: list[Tensor] = []
    for arg in args:
        if isinstance(arg, Tensor):
            found.append(arg)
        elif isinstance(arg, list | tuple):
            found += [t for t in arg if isinstance(t, Tensor)]
    return found


def _near(found: Array | None, expected: Tensor, tolerance: float) -> bool:
    """Equal to tolerance x max(1, |value|), everywhere."""
    if found is None or found.shape != tuple(expected.shape):
        return False
    value = expected.numpy()
    return bool((np.abs(found - value) <= tolerance * np.maximum(1, np.abs(value))).all())
