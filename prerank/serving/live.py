"""The generation in force, followed: when `current.json` names a new one it is loaded beside the old and swapped in whole."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from prerank.serving.generation import Generation, GenerationError, current, open_current
from prerank.serving.scorer import Builder, Scorer

log = logging.getLogger("prerank.serving")


class Live:
    """Holds the scorer; a request takes it once and so never sees two generations.

    folder    of generations, or one generation (which is then never replaced)
    """

    def __init__(self, folder: str | Path, build: Builder) -> None:
        """Raises GenerationError."""
        self.folder, self._build = Path(folder), build
        self.scorer = Scorer(open_current(folder), build)
        self._refused: Path | None = None

    def refresh(self) -> bool:
        """Load the generation in force if it is another one. True when it was swapped in. Raises GenerationError once for a bad one."""
        if (self.folder / "meta.json").is_file():
            return False
        path = current(self.folder)
        if path in (self.scorer.generation.folder, self._refused):
            return False
        self._refused = path
        self.scorer = Scorer(Generation(path), self._build)
        self._refused = None
        return True

    async def follow(self, seconds: float, changed: Callable[[bool], None]) -> None:
        """Look every so many seconds, for ever. A generation that cannot be loaded is logged once; the old one stays.

        changed   called with True after a swap, False after a refusal
        """
        while True:
            await asyncio.sleep(seconds)
            try:
                if await asyncio.to_thread(self.refresh):
                    log.info("generation %d is in force", self.scorer.generation.meta.number)
                    changed(True)
            except GenerationError as error:
                log.error("%s; generation %d stays", error, self.scorer.generation.meta.number)
                changed(False)
