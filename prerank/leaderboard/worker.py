"""One training of a board, in a process of its own: settings come on stdin, events go to stdout, everything else to stderr.

    python -m prerank.leaderboard.worker < settings.json

It ends when its stdin does: a board that was killed leaves no training behind that holds its folder. The training writes a
checkpoint then, and the next call goes on from it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

from prerank.config import Config, parse
from prerank.leaderboard import pooled
from prerank.leaderboard.state import State, keep
from prerank.metrics import evaluate
from prerank.run import Run, open_run, train
from prerank.training.checkpoint import StaleCheckpointError
from prerank.training.lock import FolderInUseError
from prerank.training.step import DivergedError

EVERY = 0.5  # seconds between two steps that are told
T = TypeVar("T")
PATIENCE = 60.0  # seconds that a training of a board just killed may take to let go of its folder


class Events:
    """A training's progress as JSON lines."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file
        self.told = 0.0

    def send(self, **event: Any) -> None:
        self.file.write(json.dumps(event) + "\n")
        self.file.flush()

    def step(self, epoch: int, step: int, steps: int, rows: int, loss: float) -> None:
        now = time.monotonic()
        if now - self.told > EVERY:
            self.told = now
            self.send(epoch=epoch, done=step / steps)

    def epoch(self, entry: dict[str, Any]) -> None:
        self.send(ended=entry["epoch"], auc=entry.get("validation_auc"), logloss=entry.get("validation_logloss"))

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        pass


def work(config: Config, events: Events) -> State:
    """Train, or go on, or open what is trained; measure on test; write the state. Raises what is not the model's fault."""
    folder = Path(config.output)
    try:
        run = _trained(config, events)
    except DivergedError as error:
        state = State("diverged", str(error).splitlines()[0])
    else:
        state = State("finished", measured=_measured(run))
    state.write(folder)
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    return state


def _trained(config: Config, events: Events) -> Run:
    folder = Path(config.output)
    if (folder / "result.json").exists():
        return open_run(folder)
    return patiently(lambda: train(config, resume=True, progress=events, each_epoch=events.epoch)[0], folder, events)


def patiently(start: Callable[[], T], folder: Path, events: Events) -> T:
    """What `start` gives, once the folder is free: a board just killed may still hold it. Half a training of other data starts again."""
    begun = time.monotonic()
    while True:
        try:
            return start()
        except StaleCheckpointError as error:  # it is worth nothing
            events.say(f"{error}; it starts again")
            shutil.rmtree(folder / "checkpoint")
        except FolderInUseError:
            if time.monotonic() - begun > PATIENCE:
                raise
            time.sleep(0.2)


def _measured(run: Run) -> dict[str, Any]:
    """What the tables need of a run, its test logits put beside it."""
    logits, labels = run.logits("test")  # [n, T] each
    groups, objectives = run.groups("test"), run.dataset.schema.objectives
    users = run.dataset.user_row[run.dataset.rows("test")]
    keep(run.folder, logits=logits, labels=(labels > 0).astype("uint8"), users=users)
    test = {name: evaluate(logits[:, t], labels[:, t] > 0, groups=groups).to_dict() for t, name in enumerate(objectives)}
    result = json.loads((run.folder / "result.json").read_text())  # counted over interruptions
    epochs = len((run.folder / "history.jsonl").read_text().splitlines())
    user = getattr(run.model, "user", None)
    return {
        "test": test, "pool": pooled.measured(run), "validation": result["best"], "best_epoch": result["best_epoch"], "epochs": epochs,
        "parameters": result["parameters"], "user_tower_parameters": None if user is None else sum(p.numel() for p in user.parameters()),
        "rows": result["rows"], "seconds": result["seconds"], "rows_per_second": result["rows_per_second"],
        "rows_per_cpu_second": result["rows_per_cpu_second"],
    }  # fmt: skip


def main(work: Callable[[Config, Events], State] = work) -> None:
    """The process: exit status 0 once the state is written."""
    events = Events(os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)  # whatever else prints, prints to the log
    config = parse(json.loads(sys.stdin.readline()), where="leaderboard")
    threading.Thread(target=_die_with_the_board, daemon=True).start()
    folder = Path(config.output)
    try:
        state = work(config, events)
    except ValueError as error:  # ours, one line: settings, data
        state = State("failed", str(error).splitlines()[0])
        state.write(folder)
    except KeyboardInterrupt as stop:
        print(stop, file=sys.stderr)
        sys.exit(130)
    print(f"{state.status}{': ' + state.why if state.why else ''}", file=sys.stderr)


def _die_with_the_board() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
