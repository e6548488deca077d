"""The user tower recorded once and played back in numpy: at batch 1 its products take 30 us and torch's dispatch 150.

A model in eval mode, asked for one row, always runs the same operations on the same shapes. So they are recorded while
torch runs it, parameters become constants (sharing their memory), and playing them back is a list of numpy calls. An
operation that `operations.py` does not know, or a tape that does not say what the model says, means: no tape, torch goes on.

    tape = record(encode, columns)           encode: columns of one row -> Representation; None when it cannot be recorded
    vector, bias = tape(columns)             the same, flat [sum Hu K], and bias [T] or None, from numpy columns
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from prerank.batch import Columns, Representation
from prerank.serving.operations import OPERATIONS, same

Array = NDArray[Any]


class Untraceable(Exception):
    """An operation that the tape does not know."""


class Tape:
    """Steps over numbered registers: the inputs first, then constants and what the steps give."""

    def __init__(self, inputs: Sequence[str]) -> None:
        self.inputs = tuple(inputs)
        self.start: list[Any] = [None] * len(self.inputs)  # registers before the first step
        self.steps: list[tuple[Callable[..., Any], Callable[[list[Any]], Any], int]] = []  # function, its arguments, register
        self.vector, self.bias = 0, -1  # registers of the answer; -1: no bias

    def __call__(self, columns: dict[str, Array]) -> tuple[Array, Array | None]:
        """Columns of one row [1, ...] -> vector [sum Hu K], bias [T] or None. Safe to call from several threads."""
        registers = self.start.copy()
        for i, name in enumerate(self.inputs):
            registers[i] = columns[name]
        for function, arguments, result in self.steps:
            registers[result] = function(*arguments(registers))
        return registers[self.vector][0], None if self.bias < 0 else registers[self.bias][0]

    def __repr__(self) -> str:
        return f"<Tape of {len(self.steps)} steps>"


def record(encode: Callable[[Columns], Representation], samples: Columns, tolerance: float = 1e-5) -> Tape | None:
    """The tape of `encode`, or None when it has an unknown operation or says something else than torch for some sample.

    samples     columns of a few rows [n, ...]; the first is recorded, all are compared, to tolerance x max(1, |value|)
    """
    rows = [{name: column[i : i + 1] for name, column in samples.items()} for i in range(len(next(iter(samples.values()))))]
    tape = Tape(list(samples))
    recorder = _Recorder(tape, rows[0])
    try:
        with torch.no_grad(), recorder:
            said = encode(rows[0])
            flat = said.flat()
    except Untraceable:
        return None
    tape.vector, tape.bias = recorder.register(flat), -1 if said.bias is None else recorder.register(said.bias)
    with torch.no_grad():
        for row in rows:
            expected = encode(row)
            vector, bias = tape({name: column.numpy() for name, column in row.items()})
            if not _near(vector, expected.flat()[0], tolerance):
                return None
            if expected.bias is not None and not _near(bias, expected.bias[0], tolerance):
                return None
    return tape


class _Recorder(TorchDispatchMode):
    """Writes every operation that depends on the inputs; what depends on parameters alone is a constant."""

    def __init__(self, tape: Tape, columns: Columns) -> None:
        super().__init__()
        self.tape = tape
        self.alive: list[Any] = list(columns.values())  # an id is unique only while its object lives
        self.made: dict[int, int] = {id(columns[name]): i for i, name in enumerate(tape.inputs)}
        self.constants: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.alive += [args, result]
        tensors = _tensors(args)
        if any(id(t) in self.made for t in tensors):
            if func not in OPERATIONS:
                raise Untraceable(str(func))
            play = OPERATIONS[func](args, kwargs or {}, result)
            at = self.register(tensors[0]) if play is same else self._step(play, [self.register(t) for t in tensors])
            if isinstance(result, Tensor):
                self.made[id(result)] = at
            else:
                for i, part in enumerate(result):
                    self.made[id(part)] = self._step(itemgetter(i), [at])
        return result

    def register(self, tensor: Tensor) -> int:
        """Number of a tensor; one that no step made is a constant."""
        if id(tensor) in self.made:
            return self.made[id(tensor)]
        if id(tensor) not in self.constants:
            self.alive.append(tensor)
            self.constants[id(tensor)] = self._new(tensor.detach().numpy())
        return self.constants[id(tensor)]

    def _step(self, play: Callable[..., Any], arguments: list[int]) -> int:
        at = self._new(None)
        pick = itemgetter(*arguments) if len(arguments) > 1 else itemgetter(slice(arguments[0], arguments[0] + 1))  # always a sequence
        self.tape.steps.append((play, pick, at))
        return at

    def _new(self, value: Any) -> int:
        self.tape.start.append(value)
        return len(self.tape.start) - 1


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
