"""The rankers of a teacher, a run for each fold and one for all train rows, and what they say of the rows they have not seen.

Everything is a folder that can be opened again: FOLDER/NAME/fold-K is a run like any other, with `logits.npy` of the rows that it scores
beside its weights. What is finished is not done again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prerank.config import Config, ConfigError, load
from prerank.data import Dataset, Loader
from prerank.data.columns import Writer, open_column
from prerank.run import train
from prerank.teachers.fold_log import FoldLog
from prerank.training import Progress, Quiet, predict
from prerank.training.device import device_of

CHUNK = 1 << 20  # rows whose logits are in memory at a time
LOGITS = "logits.npy"


@dataclass(frozen=True, slots=True)
class Job:
    """One training: a member on all train rows but one fold's, or on all of them (`fold` None)."""

    name: str
    fold: int | None
    config: Config

    @property
    def folder(self) -> Path:
        return Path(self.config.output)

    @property
    def what(self) -> str:
        return f"{self.name}, {'all train rows' if self.fold is None else f'without fold {self.fold + 1}'}"


def jobs(members: dict[str, Config], log: FoldLog, folder: Path) -> list[Job]:
    """Every training, the ones on all train rows first: weights are fitted on those."""
    found = []
    for fold in (None, *range(log.folds)):
        for name, config in members.items():
            output = str(folder / name / ("whole" if fold is None else f"fold-{fold}"))
            found.append(Job(name, fold, config.model_copy(update={"data": log.data_of(fold, config.data), "output": output})))
    return found


def run_jobs(todo: Sequence[Job], log: FoldLog, *, say: Callable[[str], None], progress: Callable[[], Progress] = Quiet) -> None:
    """Train and score, one after another; finished ones are passed over. Raises ConfigError and what `train` raises."""
    open_ = [job for job in todo if not _finished(job)]
    if len(open_) < len(todo):
        say(f"{len(todo) - len(open_)} of {len(todo)} trainings are finished already")
    start = time.monotonic()
    for done, job in enumerate(open_, start=1):
        before = time.monotonic()
        say(f"{job.what}: training")
        run, result = train(job.config, resume=True, progress=progress())
        model: Any = run.model
        score(model, run.dataset, log.scored_by(job.fold), job.config, job.folder / LOGITS)
        best = "" if result.best is None else f", validation {job.config.training.monitor} {result.best:.4f}"
        now = time.monotonic()
        left = (now - start) / done * (len(open_) - done)
        say(f"{job.what}: epoch {result.best_epoch}{best}, {now - before:.0f} s; {done} of {len(open_)}, about {_clock(left)} left")


def score(model: torch.nn.Module, dataset: Dataset, rows: NDArray[np.int64], config: Config, path: Path) -> None:
    """Write the logits of log rows [n], chunk by chunk; the file appears whole.  # float32 [n, T]"""
    device = device_of(config.training)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with Writer(temporary, np.float32, (len(rows), len(dataset.schema.objectives))) as out:
            model.to(device)
            for first in range(0, len(rows), CHUNK):
                loader = Loader(dataset, rows[first : first + CHUNK], config.training.eval_batch_size, shuffle="none")
                out.append(predict(model, loader.epoch(0), device)[0])
        temporary.replace(path)
    finally:
        model.cpu()
        temporary.unlink(missing_ok=True)


def logits(todo: Sequence[Job]) -> Iterator[tuple[int | None, list[NDArray[np.float32]]]]:
    """(fold, [logits [n, T] of each member]) of every fold."""
    for fold in dict.fromkeys(job.fold for job in todo):
        yield fold, [open_column(job.folder / LOGITS) for job in todo if job.fold == fold]


def _finished(job: Job) -> bool:
    """Raises ConfigError when the folder holds a finished run of other settings."""
    if not (job.folder / LOGITS).exists():
        return False
    before = load(job.folder / "config.yaml")
    for part in ("data", "model", "objective", "training"):
        if getattr(before, part) != getattr(job.config, part):
            raise ConfigError(f"run folder '{job.folder}': was trained with another '{part}' section; resume needs the same one, "
                              "--overwrite starts again")  # fmt: skip
    return True


def _clock(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
