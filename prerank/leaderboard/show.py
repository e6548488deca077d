"""What a board shows while it trains: a bar with the time left and a line a training on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from prerank.leaderboard.pool import Job, Watcher, seconds_left
from prerank.leaderboard.state import State

LINE_SECONDS = 60.0  # a log file is told of the running trainings so often


class Show(Watcher):
    """See the module's first lines.

    taken   label -> seconds of a training that ended before
    """

    def __init__(self, jobs: Sequence[Job], processes: int, taken: dict[str, float], console: Console) -> None:
        self.waiting, self.running, self.total = list(jobs), list[Job](), len(jobs)
        self.processes, self.taken, self.console = processes, dict(taken), console
        self.told = time.monotonic()
        self.bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
                            TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal)  # fmt: skip
        self.all = self.bar.add_task("trainings", total=self.total, note="")
        self.tasks: dict[Job, TaskID] = {}

    def __enter__(self) -> Show:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def started(self, job: Job) -> None:
        self.waiting.remove(job)
        self.running.append(job)
        self.tasks[job] = self.bar.add_task(f"  {job.name}", total=job.config.training.epochs, note="")

    def moved(self, job: Job) -> None:
        self.bar.update(self.tasks[job], completed=job.epoch - 1, note=_where(job))

    def epoch(self, job: Job, event: dict[str, Any]) -> None:
        self.moved(job)

    def ended(self, job: Job, state: State) -> None:
        self.running.remove(job)
        self.bar.remove_task(self.tasks.pop(job))
        self.bar.update(self.all, advance=1)
        if state.status == "finished":
            self.taken[job.label] = job.seconds
        done = self.total - len(self.waiting) - len(self.running)
        self._say(f"{done} of {self.total}: {job.name}: {_outcome(state)} ({job.seconds:.0f} s){self._left()}")

    def tick(self, running: Sequence[Job]) -> None:
        self.bar.update(self.all, note=self._left().removeprefix("; "))
        if not self.console.is_terminal and time.monotonic() - self.told > LINE_SECONDS:
            self._say(", ".join(f"{job.name}: {_where(job)}" for job in running) + self._left())

    def _say(self, line: str) -> None:
        self.told = time.monotonic()
        self.bar.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _left(self) -> str:
        left = seconds_left(self.running, self.waiting, self.taken, self.processes)
        if left is None or not (self.running or self.waiting):
            return ""
        return f"; about {left / 60:.0f} min left" if left >= 90 else f"; about {left:.0f} s left"


def _where(job: Job) -> str:
    best = "" if job.auc is None else f", validation AUC {job.auc:.4f}"
    return f"epoch {job.epoch}, {job.done:.0%}{best}" if job.epoch else "starting"


def _outcome(state: State) -> str:
    if state.status != "finished":
        return f"{state.status}: {state.why}"
    return ", ".join(f"{label} AUC {m['auc']:.4f}" for label, m in state.measured["test"].items())
