"""One pass over a log in the order of time: predict, score, learn, observe.

    scores = stream(model, objective, dataset, order, settings, folder)

Every batch is predicted before anything is learned from it: what is measured on it is what serving would have said. Two protocols, always
both:

    prequential   the model goes on learning through the test rows
    frozen        weights, memories and running statistics (`Dataset.frozen`) as they stood when the test rows began

A label may come late: with `delay` a batch is learned from when the last of its labels is known at the next batch's first row. Averaged
weights, where there are any, predict (a second model of which they are the parameters); the plain ones learn. Memories (CTS, CMS) are
written after the step, by `model.observe`. A ranking model beside it (CMS) goes through the same batches: its vector of a row is made
before it learns from the row.

With `rehearsal` so many batches, drawn among those that were learned from before, are learned from once more after each new one. Their
labels are known, and their columns are as they were at each row's own moment. They are neither predicted nor observed again. What a row
reads of memories, or of vectors that are learned, knows its label by then: memories are refused, vectors of ids told of.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from prerank.batch import Batch
from prerank.config import ConfigError
from prerank.config import Training as Settings
from prerank.data import Dataset, Loader
from prerank.schema import Schema
from prerank.training import checkpoint
from prerank.training.device import configure, device_of
from prerank.training.learner import Learner, Pair
from prerank.training.predict import evaluating, predict
from prerank.training.step import Objective
from prerank.training.stop import Interrupted, stop_asked

Told = Callable[["State"], None]


@dataclass(frozen=True, slots=True)
class Order:
    """Impressions of a log in order of time.

    rows    int64 [n] log rows;  ts   int64 [n] ms
    test    position of the first test row; before it is what the frozen protocol knows
    """

    rows: NDArray[np.int64]
    ts: NDArray[np.int64]
    test: int

    def ends(self, size: int) -> NDArray[np.int64]:
        """Where each batch of `size` rows ends; none reaches over the split, so that the frozen protocol knows every row before it."""
        n = len(self.rows)
        starts = np.concatenate([np.arange(0, self.test, size), np.arange(self.test, n, size)])
        return np.append(starts[1:], n)


@dataclass
class State:
    """Where a stream stands; logits of rows that were not yet predicted are NaN.

    logits    float32 [n, T] before learning from each row;  frozen   float32 [n - test, T]
    step      batches predicted;  learned   batches learned from;  rows   rows predicted
    seconds, cpu_seconds   spent so far
    """

    logits: NDArray[np.float32]
    frozen: NDArray[np.float32]
    step: int = 0
    learned: int = 0
    rows: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0


def in_time(dataset: Dataset, *, sort: bool = True) -> Order:
    """Every impression, ordered by time; rows of one moment stay in the log's order.

    sort   rows that lie before an earlier row's time are sorted in; without it they are refused
    Raises ConfigError when there is no time, no test row, or a test row before a train row.
    """
    if dataset.ts is None:
        raise ConfigError("data.time: a pass in order of time needs the column of the event's time")
    known = np.sort(np.concatenate([dataset.rows("train"), dataset.rows("validation")]))
    test = dataset.rows("test")
    if not len(test):
        raise ConfigError("data.split.test: the two protocols part where the test rows begin, and there are none")
    rows = np.sort(np.concatenate([known, test]))
    back = int((np.diff(dataset.ts[rows]) < 0).sum())
    if back and not sort:
        raise ConfigError(f"log: time runs backwards {back:,} times; sort the log, or let it be sorted")
    if len(known) and dataset.ts[known].max() > dataset.ts[test].min():
        raise ConfigError("data.split: rows to test on lie before rows to learn from; a pass in order of time needs split.kind time")
    rows = np.concatenate([part[np.argsort(dataset.ts[part], kind="stable")] for part in (known, test)])
    return Order(rows, np.asarray(dataset.ts[rows]), len(known))


def check_rehearsal(model: Any, settings: Settings) -> None:
    """Raise ConfigError where a model cannot learn from past batches once more."""
    if settings.rehearsal and bool(getattr(model, "memories", ())):
        raise ConfigError("training.rehearsal: a model with synergy.cts or cms does not take it: a row that is learned from once more "
                          f"would read memories that hold its own label; got {settings.rehearsal}")  # fmt: skip


def id_vocabularies(model: nn.Module, schema: Schema) -> list[str]:
    """The vocabularies of user and item ids of which a model holds vectors or biases."""
    ids = [schema.vocabulary_of(schema[name]) for name in (schema.user_id, schema.item_id)]
    if getattr(model, "remembers", False):  # histories stand beside vectors of both
        return ids
    modules: list[Any] = [module for module in model.modules() if hasattr(module, "held_rows")]
    held = {vocabulary for module in modules for spans in module.held_rows().values() for vocabulary, _, _ in spans}
    return [name for name in ids if name in held]


def stream(model: nn.Module, objective: Objective, dataset: Dataset, order: Order, settings: Settings, folder: Path, *, delay: int = 0,
           ranker: nn.Module | None = None, resume: bool = False, told: Told | None = None) -> State:  # fmt: skip
    """Run the whole log through a model, in a folder whose lock the caller holds. Raises DivergedError, Interrupted, ConfigError.

    delay    ms after which a label is known
    ranker   a ranking model that is trained in step, for CMS
    told     called after every batch
    """
    with stop_asked() as stop:
        return _Stream(model, objective, dataset, order, settings, folder, delay, ranker).go(resume, stop, told or (lambda state: None))


class _Stream:
    """The state of one call of `stream`."""

    def __init__(self, model: nn.Module, objective: Objective, dataset: Dataset, order: Order, settings: Settings, folder: Path,
                 delay: int, ranker: nn.Module | None) -> None:  # fmt: skip
        if getattr(model, "needs_hidden", False) and ranker is None:
            raise ConfigError("synergy.cms: needs a ranking model beside it, and none was given")
        if getattr(model, "remembers", False):
            raise ConfigError("id_history: a pass in order of time does not take it: its sums are of the whole of train")
        check_rehearsal(model, settings)
        if settings.rehearsal and ranker is not None:
            raise ConfigError("training.rehearsal: a ranking model beside it does not take it: its vectors would be of rows that it has "
                              f"learned; got {settings.rehearsal}")  # fmt: skip
        configure(settings)
        self.device = device_of(settings)
        self.objective, self.dataset, self.order, self.settings = objective, dataset, order, settings
        self.folder, self.delay = folder, delay
        main = Learner(model, dataset.counts, settings, self.device)
        beside = None if ranker is None else Learner(ranker, dataset.counts, settings, self.device)
        self.pair = Pair(main, beside, objective, settings)
        self.ends = order.ends(settings.batch_size)
        parts = (order.rows[: order.test], order.rows[order.test :])
        self.loaders = [Loader(dataset, rows, settings.batch_size, shuffle="none", dedup=settings.dedup) for rows in parts]
        n, t = len(order.rows), dataset.labels.shape[1]
        self.state = State(np.full((n, t), np.nan, np.float32), np.full((n - order.test, t), np.nan, np.float32))
        self.waiting: deque[Batch] = deque()

    def go(self, resume: bool, stop: list[int], told: Told) -> State:
        state = self.state
        torch.manual_seed(self.settings.seed + 1_000_003)
        if resume:
            self._load()
        saved = mark = time.monotonic()
        cpu = time.process_time()
        for batch in self._batches(state.learned):  # those that wait for their labels are read again
            k = state.learned + len(self.waiting)
            end = int(self.ends[k])
            if k == state.step:
                first = end - batch.rows
                if first == self.order.test:
                    self._freeze()
                with torch.inference_mode(), evaluating(self.pair.main.predictor):
                    state.logits[first:end] = self.pair.main.predictor(batch.to(self.device)).logits[:, 0].float().cpu().numpy()
                state.step, state.rows = k + 1, end
            self.waiting.append(batch)
            self._learn(self.order.ts[min(end, len(self.order.rows) - 1)])
            now = time.monotonic(), time.process_time()
            state.seconds, state.cpu_seconds = state.seconds + now[0] - mark, state.cpu_seconds + now[1] - cpu
            mark, cpu = now
            told(state)
            if stop or now[0] - saved > self.settings.checkpoint_seconds:
                self._save()
                saved = time.monotonic()
            if stop:
                raise Interrupted(f"stopped at row {state.rows:,} of {len(self.order.rows):,}; continue with --resume")
        if getattr(self.pair.main.model, "outside", ()):  # whose memory has gone on, so that weights of the split would not fit it
            checkpoint.save_weights(self.folder / "model.safetensors", self.pair.main.predictor.state_dict())
        self._save()
        return state

    def _batches(self, start: int) -> Iterator[Batch]:
        """In order of time, from batch `start` on; see `Order.ends`."""
        before, after = self.loaders
        yield from before.epoch(0, start=start)
        yield from after.epoch(0, start=max(0, start - len(before)))

    def _freeze(self) -> None:
        """Score all test rows with what is known before the first of them, and keep those weights: they saw no test row."""
        checkpoint.save_weights(self.folder / "model.safetensors", self.pair.main.predictor.state_dict())
        rows = self.order.rows[self.order.test :]
        loader = Loader(self.dataset.frozen(), rows, self.settings.eval_batch_size, shuffle="none", dedup=False)
        self.state.frozen[:] = predict(self.pair.main.predictor, loader.epoch(0), self.device)[0]

    def _learn(self, now: int) -> None:
        """Learn from the batches whose labels are all known at `now`, the time of the next row that is to be predicted."""
        state = self.state
        while self.waiting:
            if self.order.ts[self.ends[state.learned] - 1] + self.delay > now:
                return
            state.loss = self.pair.step(self.waiting.popleft().to(self.device), state.learned + 1)
            for k in self._rehearsed():
                self.pair.step(self._past(k).to(self.device), k + 1)
            state.learned += 1

    def _rehearsed(self) -> list[int]:
        """Batches that are learned from once more beside the newest, among those before it: of seed and step alone, so that a resumed
        pass draws the same."""
        if not self.settings.rehearsal or not self.state.learned:
            return []
        drawn = np.random.default_rng([self.settings.seed, self.state.learned]).integers(self.state.learned, size=self.settings.rehearsal)
        return [int(k) for k in drawn]

    def _past(self, k: int) -> Batch:
        """Batch k as it was."""
        first, end = int(self.ends[k - 1]) if k else 0, int(self.ends[k])
        test = self.order.test
        return self.loaders[0].between(first, end) if end <= test else self.loaders[1].between(first - test, end - test)

    def _save(self) -> None:
        tensors = self.pair.tensors()
        tensors |= {"logits": torch.from_numpy(self.state.logits), "frozen": torch.from_numpy(self.state.frozen)}
        tensors["rng"] = torch.get_rng_state()
        s = self.state
        told = {"step": s.step, "learned": s.learned, "rows": s.rows, "loss": s.loss, "seconds": s.seconds, "cpu_seconds": s.cpu_seconds,
                "dataset": self.dataset.fingerprint}  # fmt: skip
        checkpoint.save(self.folder / "checkpoint", tensors, told)

    def _load(self) -> None:
        found = checkpoint.load(self.folder / "checkpoint")
        if found is None:
            return
        told = dict(found.state)
        if told.pop("dataset") != self.dataset.fingerprint:
            raise ConfigError(f"run folder '{self.folder}': its checkpoint was trained on other data; start again without --resume")
        self.pair.load(found.part)
        torch.set_rng_state(found.tensors["rng"])
        self.state.logits[:], self.state.frozen[:] = found.tensors["logits"].numpy(), found.tensors["frozen"].numpy()
        for name, value in told.items():
            setattr(self.state, name, value)
