"""The trainer of a stream of rows: predict, score, learn, observe; checkpoints with the log's offset; generations.

    Trainer(config, dataset, folder).run(stop)        role="ranking": of the ranking model, whose hidden vectors others remember (roles.py)

Every row is predicted before it is learned from, so the running metrics are what serving would have said. A checkpoint holds the weights,
the optimiser, averaged weights, memories, growing vocabularies, metrics and the position in the log, in one folder that appears whole:
after a crash the rows behind it are learned again from the state before them, none twice and none left out.

In lockstep batches are of equal size however slowly rows come, and nothing looks at the clock: an interrupted run ends bit for bit where an
uninterrupted one does. Otherwise a batch that is not full is learned from after `online.wait`.
"""

from __future__ import annotations

import json
import math
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from prerank import build
from prerank.batch import Batch
from prerank.config import Config, milliseconds
from prerank.data import DataError, Dataset
from prerank.data.encoder import digest
from prerank.metrics.running import PageHinkley, Running
from prerank.online.catalogue import Catalogue
from prerank.online.columns import Columns
from prerank.online.moments import Moments
from prerank.online.publisher import Publisher
from prerank.online.roles import Role, caches, pair
from prerank.online.saved import Saved
from prerank.online.start import begin_outside, start
from prerank.online.told import Told
from prerank.stream import Correction, LogError, Position, Row, Rows, open_log
from prerank.training.device import configure, device_of
from prerank.training.predict import evaluating

SAY = 5.0  # seconds between lines of the running metrics


class Trainer:
    """One partition's trainer, in a folder whose lock the caller holds; it goes on from the folder's checkpoint, where there is one."""

    def __init__(self, config: Config, dataset: Dataset, folder: Path, *, role: Role = "two-tower", lockstep: bool = False,
                 resume: bool = True, overwrite: bool = False, say: Callable[[str], None] | None = None) -> None:  # fmt: skip
        assert config.online is not None
        self.config, self.online, self.folder, self.role, self.lockstep = config, config.online, folder, role, lockstep
        self.say = say or (lambda line: None)
        settings, online = config.training, config.online
        configure(settings)
        self.device = device_of(settings)
        self.space = build.space(config, digest(dataset.encoders))
        self.pair = pair(config, dataset, role, self.space)
        self.learner = self.pair.main
        if not (folder / "checkpoint/current").exists():
            begin_outside(self.pair, resume, overwrite)
            if online.start is not None:
                start(self.pair, Path(online.start), role)
        torch.manual_seed(settings.seed + 1_000_003)  # dropout; the weights are drawn
        self.catalogue = Catalogue(dataset, online.remember)
        self.columns = Columns(self.catalogue, config.data, settings.dedup)
        self.moments = Moments(caches(self.pair), f"{role} {online.partition}", online.recall)
        self.running = Running(dataset.schema.objectives, online.window)
        self.drift = PageHinkley(online.drift.slack, online.drift.limit)
        try:
            self.log = open_log(online.rows, create=False)
        except LogError as error:
            self.say(f"{error}; waiting for rows")
            self.log = open_log(online.rows)
        self.lease = self.log.claim(self.group, online.partition, f"{socket.gethostname()}:{folder.resolve()}")
        self.told = Told()
        self.saved = Saved(folder / "checkpoint", self.pair, self.catalogue, self.moments, self.running, self.drift)
        found = self.saved.load(self.told)
        self.learned = found or Position()
        if found is not None:
            self.say(f"resumed after {self.told.rows:,} rows, at offset {found.offset:,}")
        self.rows = Rows(self.log, online.partition, self.learned)
        publish = None if role == "ranking" else online.publish
        self.publisher = None
        if publish is not None:
            self.publisher = Publisher(publish, config, self.catalogue, self.learner.predictor, self.space, self.say)

    def run(self, stop: Callable[[], bool], *, until_empty: bool = False, told: Callable[[Told], None] | None = None) -> Told:
        """Until `stop` says so. A checkpoint is the last thing that is written."""
        saved = published = said = time.monotonic()
        before = self.told.rows
        every = {"checkpoint": milliseconds(self.online.checkpoint) / 1000,
                 "publish": math.inf if self.online.publish is None else milliseconds(self.online.publish.every) / 1000}  # fmt: skip
        while not stop():
            self.lease.renew()
            rows = self._take(stop, until_empty)
            if self.rows.broken:
                self.say(f"skipped {self.rows.broken:,} entries that are no rows; is '{self.log.name}' what label waiting writes?")
                self.told.skipped, self.rows.broken = self.told.skipped + self.rows.broken, 0
            if rows:
                self.learn(rows)
            now = time.monotonic()
            if now - published >= every["publish"]:
                self.publish()
                published = now
            if now - saved >= every["checkpoint"]:
                self.save()
                saved = now
            if now - said >= SAY:
                self._tell((self.told.rows - before) / (now - said), told)
                said, before = now, self.told.rows
            if not rows and until_empty:
                break
        self.publish()
        self.save()
        self.lease.release()
        if self.publisher is not None:
            self.publisher.close()
        self._tell((self.told.rows - before) / max(time.monotonic() - said, 1e-9), told)
        return self.told

    def learn(self, rows: Sequence[Row]) -> None:
        """Predict, score, learn, observe; then the position moves."""
        rows = self._fresh(rows)
        grown = self.columns.admit(rows)
        self.pair.reset_rows({name: changes.admitted for name, changes in grown.items()})
        if self.publisher is not None:
            self.publisher.grew(grown)
        batch = self._batch(rows) if rows else None
        if batch is not None:
            batch = batch.to(self.device)
            with self.moments.at(rows):
                with torch.inference_mode(), evaluating(self.learner.predictor):
                    logits = self.learner.predictor(batch).logits[:, 0].float().cpu().numpy()
                loss = self.pair.step(batch, self.told.batches + 1)
            self.running.add(logits, batch.labels[:, 0].cpu().numpy())
            if self.drift.add(loss):
                self.told.alarms += 1
                self.say(f"drift: the loss has risen, to {loss:.4f} now, after {self.told.rows:,} rows")
            self.told.rows += batch.rows
            self.told.batches += 1
            self.told.delay = max(0.0, time.time() - rows[-1].appended / 1000)
            if self.publisher is not None:
                self.publisher.learned(rows)
        self.learned = self.rows.position

    def publish(self) -> None:
        """A generation of what is known now, if anything was learned since the last one."""
        if self.publisher is not None and (number := self.publisher.publish()) is not None:
            self.told.published, self.told.sequence = number, self.publisher.sequence
            if not math.isnan(self.publisher.delay):
                self.told.update_delay = self.publisher.delay
                late = round(self.publisher.delay, 3)
                self.told.updates.append((round(time.time(), 3), number, self.publisher.sequence, late, self.learned.source))

    def save(self) -> None:
        """Checkpoint with the position: one folder that appears whole."""
        self.saved.save(self.told, self.learned)
        self.log.commit(self.group, self.online.partition, self.learned.offset)

    @property
    def group(self) -> str:
        """The name under which the log knows this trainer; the position that counts is the checkpoint's."""
        return f"{self.role}:{self.config.name}"

    def _take(self, stop: Callable[[], bool], until_empty: bool) -> list[Row | Correction]:
        """Rows of one batch: a full one in lockstep, else what came within `online.wait` of the first."""
        size, wait = self.config.training.batch_size, milliseconds(self.online.wait) / 1000
        found: list[Row | Correction] = []
        begun = time.monotonic()
        while len(found) < size and not stop():
            more = self.rows.take(size - len(found), 0.0 if until_empty else min(wait, 0.2))
            found += more
            if not more and until_empty:
                break
            if not self.lockstep and time.monotonic() - begun >= wait:
                break
        if self.lockstep and len(found) < size:
            self.rows.position = self.learned  # not a batch: whoever goes on reads these again
            return []
        return found

    def _fresh(self, rows: Sequence[Row | Correction]) -> list[Row]:
        """Corrections are counted and left alone: a row is learned once, with the labels it went out with (ours)."""
        kept = [r for r in rows if not isinstance(r, Correction)]
        self.told.corrections += len(rows) - len(kept)
        there = [r for r in kept if not self.moments.late(r)]
        self.told.late += len(kept) - len(there)
        return there

    def _batch(self, rows: list[Row]) -> Batch | None:
        """The rows' batch; rows that cannot be encoded are taken out of the list and counted, and never stop the stream."""
        try:
            return self.columns.batch(rows)
        except DataError as error:
            good = [row for row in rows if self._reads(row)]
            self.told.skipped += len(rows) - len(good)
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
        """A line of metrics.jsonl, and whoever listens."""
        t = self.told
        t.rate, t.lag, t.metrics = rate, self.rows.lag, self.running.measure()
        line = {"time": round(time.time(), 3), **{k: v for k, v in vars(t).items() if k != "metrics"}, **t.metrics}
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(_known(line)) + "\n")
        if told is not None:
            told(t)
        t.updates = []


def _known(line: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: what is not known is null."""
    return {k: _known(v) if isinstance(v, dict) else None if isinstance(v, float) and math.isnan(v) else v for k, v in line.items()}
