"""Learning from a stream as a run: a config in, a folder that goes on where it stopped.

    train_online(config, resume=True)        # until it is asked to stop

The folder: config.yaml, checkpoint/ (with the position in the log), metrics.jsonl (a line every few seconds).
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from prerank import build
from prerank.config import Config, ConfigError, dump, load
from prerank.data import prepare
from prerank.datasets import resolve
from prerank.online.intake import BACKOFF
from prerank.online.roles import Role, check, check_together
from prerank.online.told import Told
from prerank.online.trainer import Trainer
from prerank.store import SpaceError, StoreError
from prerank.stream import open_log
from prerank.training.checkpoint import write_text
from prerank.training.lock import locked
from prerank.training.stop import stop_asked
from prerank.training.together import Group, launched


def train_online(config: Config, *, role: Role = "two-tower", resume: bool = False, overwrite: bool = False, lockstep: bool = False,
                 until_empty: bool = False, say: Callable[[str], None] | None = None,
                 told: Callable[[Told], None] | None = None) -> Told:  # fmt: skip
    """Learn from `config.online.rows` in the folder `config.output` until asked to stop.

    role          who learns (roles.py); the ranking model's folder is the folder `ranking` in there
    until_empty   stop when the log has no more rows (of a full batch, in lockstep)
    told          called after every line of metrics
    Of several processes (torchrun) each reads partitions of its own, all learn together, and the first one writes, publishes and tells.
    Raises ConfigError, DataError, DivergedError, LogError, FolderInUseError, GroupError, StoreError.
    """
    if config.online is None:
        raise ConfigError("online: the config has no such section; it names the log of rows")
    resolved = config.model_copy(update={"data": resolve(config.data)})
    build.check_terms(config, resolved.data, resolved.data.schema_())
    check(resolved, role)
    if until_empty:
        open_log(config.online.rows, create=False).close()  # of what is not there, nothing is to be learned
    rank, processes = launched()
    check_together(resolved, processes)
    folder, publish = Path(config.output), config.online.publish
    if config.online.start is not None and Path(config.online.start).resolve() == folder.resolve():
        raise ConfigError(f"online.start '{config.online.start}': is the output folder itself; give output another one")
    if role == "ranking":
        folder, publish = folder / "ranking", None
    with contextlib.ExitStack() as held:
        if not rank:
            held.enter_context(locked(folder))
            if publish is not None:
                held.enter_context(locked(Path(publish.folder) / ".publisher"))
        together = held.enter_context(Group.joined(config.training.device))
        with together.first():
            if not rank:
                _claim(folder, config, resume, overwrite)
            dataset = prepare(resolved.data)
        stop = held.enter_context(stop_asked())

        def begin(again: bool) -> Trainer:
            return Trainer(resolved, dataset, folder, role=role, lockstep=lockstep, resume=resume or again,
                           overwrite=overwrite and not again, say=say, together=together)  # fmt: skip

        trainer = begin(again=False)
        if not rank:
            write_text(folder / "config.yaml", dump(config))
        while True:
            try:
                return trainer.run(lambda: bool(stop), until_empty=until_empty, told=told)
            except SpaceError:
                raise
            except StoreError as error:
                if until_empty or processes > 1:  # several processes: who began them begins them again
                    raise
                trainer.close()
                trainer = _when_back(error, lambda: begin(again=True), stop, say)


def _when_back(error: StoreError, begin: Callable[[], Trainer], stop: Sequence[int], say: Callable[[str], None] | None) -> Trainer:
    """Memories were away in the middle of a batch: it is learned again, from the last checkpoint, when they are there. Raises what it was
    given when it is asked to stop."""
    if say is not None:
        say(f"{error}; going on from the last checkpoint when it is back")
    pause = BACKOFF[0]
    while not stop:
        time.sleep(pause)
        pause = min(2 * pause, BACKOFF[1])
        with contextlib.suppress(StoreError):
            return begin()
    raise error


def _claim(folder: Path, config: Config, resume: bool, overwrite: bool) -> None:
    """Raise ConfigError where a run is in the way, or another one is to be resumed."""
    before = folder / "config.yaml"
    if before.exists() and overwrite:
        before.unlink()
        (folder / "metrics.jsonl").unlink(missing_ok=True)
        for old_part in ("checkpoint", "tensorboard"):
            shutil.rmtree(folder / old_part, ignore_errors=True)
    elif before.exists() and not resume:
        raise ConfigError(
            f"run folder '{folder}': holds a run already; continue it with --resume, replace it with --overwrite, or set output"
        )
    elif before.exists():
        old = load(before)
        for part in ("data", "model", "synergy", "objective", "training"):
            if getattr(old, part) != getattr(config, part):
                raise ConfigError(f"run folder '{folder}': was started with another '{part}' section; resume needs the same one ({before})")
