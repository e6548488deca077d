"""What a command that runs for long tells on stderr, unless it is to be quiet."""

from __future__ import annotations

from rich.console import Console


class Telling:
    """`say` a line; `preparing` is told often how far a stage is, and names each stage once."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet, self.console = quiet, Console(stderr=True)
        self._last = ""

    def say(self, line: str) -> None:
        if not self.quiet:
            self.console.print(line, highlight=False, soft_wrap=True)

    def preparing(self, stage: str, done: float) -> None:
        if stage != self._last:
            self._last = stage
            self.say(f"preparing: {stage}")
