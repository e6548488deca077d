"""What a training shows: a bar with loss, rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

LINE_SECONDS = 5.0  # a log file wants to know that it lives, not every step


class Progress(Protocol):
    """Told of every step and every finished epoch."""

    def step(self, epoch: int, step: int, steps: int, rows: int, loss: float) -> None: ...

    def say(self, line: str) -> None: ...

    def close(self) -> None: ...


class Quiet:
    """Shows nothing."""

    def step(self, epoch: int, step: int, steps: int, rows: int, loss: float) -> None:
        pass

    def say(self, line: str) -> None:
        pass

    def close(self) -> None:
        pass


class TerminalBar:
    """One bar an epoch."""

    def __init__(self, console: Console) -> None:
        self.bar = Bar(TextColumn("epoch {task.fields[epoch]}"), BarColumn(), MofNCompleteColumn(),
                       TextColumn("loss {task.fields[loss]:.4f}"),
                       TextColumn("{task.fields[rate]:,.0f} rows/s"), TimeElapsedColumn(), TimeRemainingColumn(),
                       console=console, transient=True, refresh_per_second=4)  # fmt: skip
        self.task = self.bar.add_task("train", epoch=1, loss=0.0, rate=0.0)
        self.rate = Rate()
        self.bar.start()

    def step(self, epoch: int, step: int, steps: int, rows: int, loss: float) -> None:
        if step == 1:
            self.bar.reset(self.task, total=steps)
        self.bar.update(self.task, completed=step, total=steps, epoch=epoch, loss=loss, rate=self.rate(step, rows))

    def say(self, line: str) -> None:
        self.bar.console.print(line, highlight=False)

    def close(self) -> None:
        self.bar.stop()


class Lines:
    """A line every few seconds and one an epoch."""

    def __init__(self) -> None:
        self.rate = Rate()
        self.last = time.monotonic()

    def step(self, epoch: int, step: int, steps: int, rows: int, loss: float) -> None:
        rate, now = self.rate(step, rows), time.monotonic()
        if now - self.last >= LINE_SECONDS:
            self.last = now
            left = (steps - step) * rows / max(rate, 1e-9)
            self.say(f"epoch {epoch} step {step}/{steps} loss {loss:.4f} {rate:,.0f} rows/s, {left:.0f} s left in the epoch")

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        pass


class Rate:
    """Rows per second over about the last fifty steps; an epoch's first one, which waits for what came before it, does not count."""

    def __init__(self) -> None:
        self.before = time.monotonic()
        self.counted = 0
        self.seconds_per_row = 0.0

    def __call__(self, step: int, rows: int) -> float:
        now = time.monotonic()
        each, self.before = (now - self.before) / max(rows, 1), now
        if step > 1 or not self.counted:
            self.counted += step > 1
            self.seconds_per_row += max(0.02, 1 / max(self.counted, 1)) * (each - self.seconds_per_row)
        return 1.0 / max(self.seconds_per_row, 1e-12)


def console_progress() -> Progress:
    """A bar when stderr is a terminal, else lines."""
    console = Console(stderr=True)
    return TerminalBar(console) if console.is_terminal else Lines()
