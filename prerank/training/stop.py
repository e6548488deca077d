"""Being asked to stop: a signal is noted, and whoever trains ends between two steps with a checkpoint written."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any


class Interrupted(KeyboardInterrupt):
    """The user (or the system) asked to stop; a checkpoint was written."""


@contextlib.contextmanager
def stop_asked() -> Iterator[list[int]]:
    """A list that fills when SIGINT or SIGTERM comes: the run stops between two steps, not inside one.

    A second signal takes its usual way. Outside the main thread signals cannot be caught, and the list stays empty.
    """
    asked: list[int] = []

    def note(number: int, frame: object) -> None:
        asked.append(number)
        signal.signal(number, before[number])

    before: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    except ValueError:  # not in the main thread
        pass
    try:
        yield asked
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)
