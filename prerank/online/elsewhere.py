"""The published folder in a second place, an object store or Redis, for servers on other machines (`prerank serve --source`).

    elsewhere = Elsewhere(Path("generations"), "redis://store:6379/0?prefix=shop", say)
    elsewhere.copy()          there is something new; returns at once
    elsewhere.asked           a server there wants a whole generation
    elsewhere.close()         the last copy is made

A thread copies, so that a place that is away never holds up learning: it is told of once, and tried again every second; what the folder no
longer keeps by then is left out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from prerank.serving.follow import open_source, push
from prerank.serving.generation import WANTED

LOOK = 1.0  # seconds between looks at what servers ask for, and between tries
LAST = 30.0  # seconds that the last copy is given


class Elsewhere:
    """See the module's first lines."""

    def __init__(self, folder: Path, url: str, say: Callable[[str], None]) -> None:
        """Raises GenerationError for an address that cannot be used."""
        self._folder, self._say, self._source = folder, say, open_source(url)
        self.asked = False
        self._seen: bytes | None = None  # what was asked for last, which stays there
        self._new, self._closed, self._away, self._failed = threading.Event(), threading.Event(), False, 0
        self._thread = threading.Thread(target=self._work, name="prerank elsewhere", daemon=True)
        self._thread.start()

    def copy(self) -> None:
        """There is something new; a whole generation answers who asked for one."""
        self._new.set()

    def close(self) -> None:
        """Returns when the last copy is made, or has taken too long."""
        self._closed.set()
        self._thread.join(LAST)

    def _work(self) -> None:
        while not self._closed.is_set():
            self._closed.wait(LOOK) if self._away else self._new.wait(LOOK)
            self._once()
        if self._new.is_set():
            self._once()

    def _once(self) -> None:
        """Copy what is new, then see what is asked for."""
        try:
            if self._new.is_set():
                self._new.clear()
                push(self._folder, self._source)
            found = self._source.read(WANTED)
        except Exception as error:  # every object store has errors of its own
            self._new.set()
            self._failed += 1
            if isinstance(error, FileNotFoundError) and self._failed == 1:
                return  # a generation went while it was read: its trainer keeps but some
            if not self._away:
                why = (str(error) or repr(error)).splitlines()[0]
                self._say(f"generations cannot be copied to {self._source!r}: {why}; it is tried again")
            self._away = True
            return
        if self._away:
            self._say(f"generations are copied to {self._source!r} again")
        self._away, self._failed = False, 0
        if found is not None and found != self._seen:
            self._seen, self.asked = found, True
