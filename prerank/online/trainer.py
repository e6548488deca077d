"""The trainer of a stream of rows: predict, score, learn, observe; checkpoints with the log's offset; generations.

    Trainer(config, dataset, folder).run(stop)        role="ranking": of the ranking model, whose hidden vectors others remember (roles.py)

Every row is predicted before it is learned from, so the running metrics are what serving would have said. A checkpoint holds the weights,
the optimiser, averaged weights, memories, growing vocabularies, metrics and the position in the log, in one folder that appears whole:
after a crash the rows behind it are learned again from the state before them, none twice and none left out.

In lockstep batches are of equal size however slowly rows come, and nothing looks at the clock: an interrupted run ends bit for bit where an
uninterrupted one does. Otherwise a batch that is not full is learned from after `online.wait`.

Processes that learn together (`Group`) go through this file in step: each has partitions of its own, a batch of each makes one step of
all, and the first one decides when it is time for a checkpoint, writes it, publishes and speaks. In lockstep all have a full batch, or
nobody learns.
"""

from __future__ import annotations

import contextlib
import json
import math
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prerank import build
from prerank.batch import Batch
from prerank.config import Config, ConfigError, milliseconds
from prerank.data import DataError, Dataset
from prerank.data.encoder import digest
from prerank.metrics.running import PageHinkley, Running
from prerank.online.catalogue import Catalogue
from prerank.online.columns import Columns
from prerank.online.intake import Intake, part_of
from prerank.online.moments import Moments
from prerank.online.publisher import Publisher
from prerank.online.roles import Role, caches, pair
from prerank.online.saved import Saved
from prerank.online.start import begin_outside, start
from prerank.online.told import Told
from prerank.online.words import Agreed, Heard, Word, agree, meet, strangers, use
from prerank.stream import Correction, LogError, Row, open_log
from prerank.training.device import configure, device_of
from prerank.training.predict import evaluating
from prerank.training.together import Group

SAY = 5.0  # seconds between lines of the running metrics


class Trainer:
    """A stream's trainer, or one of several that learn together, in a folder whose lock the caller holds; it goes on from the folder's
    checkpoint, where there is one. together: who they are; None: we are alone."""

    def __init__(self, config: Config, dataset: Dataset, folder: Path, *, role: Role = "two-tower", lockstep: bool = False,
                 resume: bool = True, overwrite: bool = False, say: Callable[[str], None] | None = None,
                 together: Group | None = None) -> None:  # fmt: skip
        assert config.online is not None
        self.together = together = together or Group()
        self._lines: list[str] = []  # for the first process to say
        self.config, self.online, self.folder, self.role, self.lockstep = config, config.online, folder, role, lockstep
        self.say = self._lines.append if together.rank else say or (lambda line: None)
        settings, online = config.training, config.online
        configure(settings)
        self.device = device_of(settings)
        self.space = build.space(config, digest(dataset.encoders))
        self.pair = pair(config, dataset, role, self.space, together)
        self.learner = self.pair.main
        begun = (folder / "checkpoint/current").exists()
        if len(set(together.numbers(begun))) > 1:
            raise ConfigError(f"run folder '{folder}': must be one that all processes see; some find no checkpoint in it")
        if not begun:
            with together.first():
                begin_outside(self.pair, resume or together.rank > 0, overwrite and not together.rank)
                if online.start is not None:
                    start(self.pair, Path(online.start), role)
        torch.manual_seed(settings.seed + 1_000_003 + together.rank)  # dropout; the weights are drawn
        self.catalogue = Catalogue(dataset, online.remember)
        self.columns = Columns(self.catalogue, config.data, settings.dedup)
        self.moments = Moments(caches(self.pair), role, online.recall)
        self.running = Running(dataset.schema.objectives, online.window)
        self.drift = PageHinkley(online.drift.slack, online.drift.limit)
        try:
            self.log = open_log(online.rows, create=False)
        except LogError as error:
            self.say(f"{error}; waiting for rows")
            self.log = open_log(online.rows)
        self.told, self.agreed = Told(), Agreed()
        self._saved = time.monotonic()
        self.saved = Saved(folder / "checkpoint", self.pair, self.catalogue, self.moments, self.running, self.drift)
        found = self.saved.load(self.told)
        self.intake = Intake(self.log, f"{role}:{config.name}", f"{socket.gethostname()}:{folder.resolve()}",
                             part_of(self.log, online.partition, together.rank, together.world), found or {}, settings.batch_size,
                             lockstep, self.say)  # fmt: skip
        if found is not None and not together.rank:
            at = ", ".join(f"{position.offset:,}" for position in found.values())
            self.say(f"resumed after {self.told.rows:,} rows, at offset {at}")
        publish = None if role == "ranking" else online.publish
        self.publishes = publish is not None
        self.publisher: Publisher | None = None
        if publish is not None and not together.rank:
            self.publisher = Publisher(publish, config, self.catalogue, self.learner.predictor, self.space, self.say)

    def run(self, stop: Callable[[], bool], *, until_empty: bool = False, told: Callable[[Told], None] | None = None) -> Told:
        """Until `stop` says so, to anybody. A checkpoint is the last thing that is written."""
        self.intake.patient = not until_empty  # what is away is not empty
        published = said = self._saved = time.monotonic()
        before = self.told.rows
        every = math.inf if self.online.publish is None else milliseconds(self.online.publish.every) / 1000
        while True:
            self.intake.renew()
            rows = self._take(stop, until_empty)
            if self.agreed.rows:
                self.learn(rows)
            now = time.monotonic()
            if now - published >= every:
                self.publish()
                published = now
            if self.agreed.save:
                self.save()
                self._saved = now
            if now - said >= SAY:
                self._tell((self.told.rows - before) / (now - said), told)
                said, before = now, self.told.rows
            if self.agreed.stop or (until_empty and not self.agreed.rows):
                break
        self.publish()
        self.save()
        self.intake.release()
        if self.publisher is not None:
            self.publisher.close()
        self._tell((self.told.rows - before) / max(time.monotonic() - said, 1e-9), told)
        return self.told

    def learn(self, rows: Sequence[Row | Correction]) -> None:
        """Predict, score, learn, observe; then the position moves. rows: ours, which may be none where others have some."""
        good = self._fresh(rows)
        corrections = sum(isinstance(r, Correction) for r in rows)
        late, read = len(rows) - corrections - len(good), len(good)
        grown = self.columns.admit(good)
        self.pair.reset_rows({name: changes.admitted for name, changes in grown.items()})
        if self.publisher is not None:
            self.publisher.grew(grown)
        met = meet(self.together, self.catalogue, good) if self.agreed.strangers else []
        self.moments.known = max(self.moments.known, self.agreed.known)
        batch = self._batch(good) if good else None
        use(self.catalogue, met)
        batch = None if batch is None else batch.to(self.device)
        with contextlib.nullcontext() if batch is None else self.moments.at(good, self.intake.partition):
            heard = self._predicted(batch, good)
            heard.skipped, heard.corrections, heard.late = read - len(good), corrections, late
            self._hear(batch, self.together.share(heard))
        self.intake.keep()

    def _predicted(self, batch: Batch | None, rows: Sequence[Row]) -> Heard:
        """What we tell of our batch, before it is learned."""
        lines, self._lines[:] = list(self._lines), []
        none = np.zeros((0, len(self.running.objectives)), np.float32)
        if batch is None:
            return Heard(none, none, lines=lines)
        with torch.inference_mode(), evaluating(self.learner.predictor):
            logits = self.learner.predictor(batch).logits[:, 0].float().cpu().numpy()
        heard = Heard(logits, batch.labels[:, 0].cpu().numpy(), lines=lines)
        heard.since, heard.latest = min(r.appended for r in rows), rows[-1].appended
        if self.publishes:
            heard.users, heard.items = {r.impression.user for r in rows}, {r.impression.item for r in rows}
        return heard

    def _hear(self, batch: Batch | None, all_heard: Sequence[Heard]) -> None:
        """Learn, together with the others."""
        told = self.told
        for rank, heard in enumerate(all_heard):
            for name in ("skipped", "corrections", "late"):
                setattr(told, name, getattr(told, name) + getattr(heard, name))
            if not self.together.rank:
                for line in heard.lines:
                    self.say(f"process {rank}: {line}")
        learned = [heard for heard in all_heard if len(heard.logits)]
        if not learned:
            return
        loss = self.pair.step(batch, told.batches + 1)
        for heard in learned:
            self.running.add(heard.logits, heard.labels)
            if self.publisher is not None:
                self.publisher.learned(heard.users, heard.items, heard.since)
        if self.drift.add(loss):
            told.alarms += 1
            if not self.together.rank:
                self.say(f"drift: the loss has risen, to {loss:.4f} now, after {told.rows:,} rows")
        told.rows += sum(len(heard.logits) for heard in learned)
        told.batches += 1
        told.delay = max(0.0, time.time() - max(heard.latest for heard in learned) / 1000)

    def publish(self) -> None:
        """A generation of what is known now, if anything was learned since the last one."""
        if self.publisher is not None and (number := self.publisher.publish()) is not None:
            self.told.published, self.told.sequence = number, self.publisher.sequence
            if not math.isnan(self.publisher.delay):
                self.told.update_delay = self.publisher.delay
                late, source = round(self.publisher.delay, 3), max(p.source for p in self.intake.learned.values())
                self.told.updates.append((round(time.time(), 3), number, self.publisher.sequence, late, source))

    def close(self) -> None:
        """Let go of the log and of what is being copied, without a checkpoint: another trainer goes on from the last one."""
        self.log.close()
        if self.publisher is not None:
            self.publisher.close()

    def save(self) -> None:
        """Checkpoint with the positions: one folder that appears whole."""
        self.saved.save(self.told, self.intake.learned)
        self.intake.commit()
        self.moments.saved()

    def _take(self, stop: Callable[[], bool], until_empty: bool) -> list[Row | Correction]:
        """Our rows of one batch, when it is time: all have a full one in lockstep; else somebody has, or they have waited for
        `online.wait`. `agreed` says what all have said; its rows are 0 where it is not time."""
        wait = milliseconds(self.online.wait) / 1000
        hurry = until_empty or (self.agreed.full and self.agreed.rows > 0)  # somebody has much to learn: who has nothing must not keep him
        self.intake.more(0.0 if hurry else min(wait, 0.2), self.told.batches)
        found = self.intake.found
        due = not self.together.rank and (time.monotonic() - self._saved >= milliseconds(self.online.checkpoint) / 1000 or self.moments.far)
        if broken := self.intake.broken():
            self.say(f"skipped {broken:,} entries that are no rows; is '{self.log.name}' what label waiting writes?")
        word = Word(len(found), self.intake.full, self.intake.waited(wait), bool(stop()), due, broken, self.intake.lag(),
                    *self._new(found))  # fmt: skip
        self.agreed = agreed = agree(self.together, word)
        self.told.skipped += agreed.broken
        ready = agreed.whole if self.lockstep else agreed.full or agreed.waited or agreed.stop or until_empty
        if ready:
            return found
        self.agreed = agreed._replace(rows=0)
        return []

    def _fresh(self, rows: Sequence[Row | Correction]) -> list[Row]:
        """Without corrections (a row is learned once, with the labels it went out with: ours), and rows whose memories are not kept."""
        return [r for r in rows if not isinstance(r, Correction) and not self.moments.late(r)]

    def _new(self, rows: Sequence[Row | Correction]) -> tuple[int, int]:
        """What others must know of rows: what is known when they are learned, and how many strangers are among them."""
        if self.together.world == 1:
            return self.moments.known, 0
        fresh = self._fresh(rows)
        return self.moments.learns(fresh), sum(map(len, strangers(self.catalogue, fresh)))

    def _batch(self, rows: list[Row]) -> Batch | None:
        """The rows' batch; rows that cannot be encoded are taken out of the list and counted, and never stop the stream."""
        try:
            return self.columns.batch(rows)
        except DataError as error:
            good = [row for row in rows if self._reads(row)]
            self.say(f"skipped {len(rows) - len(good)} of {len(rows)} rows: {str(error).splitlines()[0]}")
            if len(good) == len(rows) or (not good and not self.told.rows):  # nothing was ever learned: it is not the row
                raise
            rows[:] = good
            return self.columns.batch(rows) if rows else None

    def _reads(self, row: Row) -> bool:
        try:
            self.columns.batch([row])
        except DataError:
            return False
        return True

    def _tell(self, rate: float, told: Callable[[Told], None] | None) -> None:
        """A line of metrics.jsonl, and whoever listens; of several processes the first one's."""
        if self.together.rank:
            return
        t = self.told
        t.rate, t.lag, t.metrics = rate, self.agreed.lag, self.running.measure()
        line = {"time": round(time.time(), 3), **{k: v for k, v in vars(t).items() if k != "metrics"}, **t.metrics}
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(_known(line)) + "\n")
        if told is not None:
            told(t)
        t.updates = []


def _known(line: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: what is not known is null."""
    return {k: _known(v) if isinstance(v, dict) else None if isinstance(v, float) and math.isnan(v) else v for k, v in line.items()}
