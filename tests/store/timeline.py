"""A memory that forgets nothing: every state of every id, kept as it was after each call. Plain numpy."""

from __future__ import annotations

import copy

import numpy as np

from tests.store.oracle import Oracle


class Timeline:
    """An Oracle after each call, with the tick at which that was known."""

    def __init__(self, width: int, decay: float | None, tick: int) -> None:
        self.tick, self.newest = tick, Oracle(width, decay)
        self.states: list[tuple[int, Oracle]] = []

    def write(self, ids: list[int], vectors: np.ndarray, ts: list[int], known: int) -> None:
        """One call of blend."""
        self.newest.write(ids, vectors, ts)
        self.states.append((known // self.tick, copy.deepcopy(self.newest)))

    def read(self, asof: int) -> Oracle:
        """What was known at the end of the last tick before the time's own."""
        before = [state for tick, state in self.states if tick < asof // self.tick]
        return before[-1] if before else Oracle(self.newest.width, self.newest.decay)
