"""Trainings in parallel processes, one thread each; whatever happens to one, the others go on.

    run(jobs, processes=2, show=Show(...))

A job that is stopped, by Ctrl-C or with the whole machine, has its checkpoint: the next call goes on from there.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from prerank.config import Config
from prerank.leaderboard.state import State, known

LOG = "log.txt"
COMMAND = (sys.executable, "-m", "prerank.leaderboard.worker")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), "1")


@dataclass(eq=False)
class Job:
    """One training to be done.

    label, seed   whose it is
    epoch, done   where it stands: the running epoch and how much of it is done
    """

    label: str
    seed: int
    config: Config
    epoch: int = 0
    done: float = 0.0
    auc: float | None = None
    begun: float = 0.0
    seconds: float = 0.0
    rest: bytes = field(default=b"", repr=False)
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    @property
    def folder(self) -> Path:
        return Path(self.config.output)

    @property
    def name(self) -> str:
        return f"{self.label} #{self.seed}"


class Watcher:
    """Told of what happens; does nothing."""

    def started(self, job: Job) -> None:
        pass

    def moved(self, job: Job) -> None:
        pass

    def epoch(self, job: Job, event: dict[str, Any]) -> None:
        pass

    def ended(self, job: Job, state: State) -> None:
        pass

    def tick(self, running: Sequence[Job]) -> None:
        pass


def run(jobs: Sequence[Job], processes: int, watcher: Watcher, command: Sequence[str] = COMMAND) -> None:
    """Do all jobs, at most `processes` at a time. Interrupted, it asks the running ones to write their checkpoints and end."""
    waiting, running = list(jobs), list[Job]()
    selector = selectors.DefaultSelector()
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                job = waiting.pop(0)
                _start(job, command)
                running.append(job)
                assert job.process is not None
                assert job.process.stdout is not None
                selector.register(job.process.stdout, selectors.EVENT_READ, job)
                watcher.started(job)
            for key, _ in selector.select(timeout=0.5):
                job, stream = key.data, key.fileobj
                chunk = os.read(key.fd, 1 << 16)  # not by readline, which would hold lines back that select cannot see
                *lines, job.rest = (job.rest + chunk).split(b"\n")
                for line in lines:
                    _event(job, line, watcher)
                if chunk:
                    continue
                selector.unregister(stream)
                running.remove(job)
                watcher.ended(job, _end(job))
            watcher.tick(running)
    except BaseException:
        _stop(running)
        raise
    finally:
        selector.close()


def _start(job: Job, command: Sequence[str]) -> None:
    """Begin a job; its settings go in by stdin, which then stays open as long as we live."""
    job.folder.mkdir(parents=True, exist_ok=True)
    with (job.folder / LOG).open("a") as log:
        job.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1,
                                       env={**os.environ, "OMP_WAIT_POLICY": "passive", **ONE_THREAD})  # fmt: skip
    job.begun = time.monotonic()
    with suppress(BrokenPipeError):  # one that ended at once is seen by its end
        _in(job).write(json.dumps(job.config.model_dump(mode="json", exclude_unset=True)) + "\n")
        _in(job).flush()


def _event(job: Job, line: bytes, watcher: Watcher) -> None:
    event = json.loads(line)
    if "ended" in event:
        job.epoch, job.done, job.auc = event["ended"] + 1, 0.0, event["auc"]
        watcher.epoch(job, event)
    else:
        job.epoch, job.done = event["epoch"], event["done"]
        watcher.moved(job)


def _end(job: Job) -> State:
    """How a process that closed its output ended: what it wrote, or why it could not."""
    assert job.process is not None
    status = job.process.wait()
    job.seconds = time.monotonic() - job.begun
    _close(job)
    state = known(job.folder)
    if status == 0 and state is not None:
        return state
    lines = (job.folder / LOG).read_text(errors="replace").splitlines()
    last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing was said")
    how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    state = State("failed", f"{how}: {last[:300]}")
    state.write(job.folder)
    return state


def _stop(running: Sequence[Job]) -> None:
    """Ask all to end, and wait."""
    for job in running:
        assert job.process is not None
        job.process.terminate()
    for job in running:
        assert job.process is not None
        try:
            job.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            job.process.kill()
            job.process.wait()
        _close(job)


def _close(job: Job) -> None:
    assert job.process is not None
    for stream in (job.process.stdin, job.process.stdout):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()


def _in(job: Job) -> IO[str]:
    assert job.process is not None
    assert job.process.stdin is not None
    return job.process.stdin


def seconds_left(running: Sequence[Job], waiting: Sequence[Job], taken: dict[str, float], processes: int) -> float | None:
    """About how long the rest takes, at most: a training may stop early; None before anything is known.

    taken   label -> seconds of one of its trainings that has ended; a label without one that waits is taken as the mean of the
            others, one that runs goes by its epochs
    """
    now = time.monotonic()
    totals = [(_total(job, now - job.begun, taken), now - job.begun) for job in running]
    mean = [*taken.values(), *(total for total, _ in totals if total is not None)]
    if not mean:
        return None
    usual = sum(mean) / len(mean)
    left = sum(taken.get(job.label, usual) for job in waiting)
    left += sum(max(0.0, (usual if total is None else total) - elapsed) for total, elapsed in totals)
    return left / min(processes, max(1, len(running) + len(waiting)))


def _total(job: Job, elapsed: float, taken: dict[str, float]) -> float | None:
    """Seconds that a running training takes in all; None when it has only begun."""
    known = taken.get(job.label, 0.0)
    part = (job.epoch - 1 + job.done) / job.config.training.epochs if job.epoch else 0.0
    if known > elapsed:
        return known
    return elapsed / part if part > 0.02 else known or None
