"""A log replayed through a model in the order of time, and what each protocol says of it: see training/online.py.

    replayed = replay(config)            # a folder: config.yaml, checkpoint/, scores.npz, replay.json, replay.png
    replayed.metrics["prequential"]["long_view"]["auc"]

Beside the totals over the test rows stand sliding windows over the whole log: every row was predicted before it was learned from.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prerank import build
from prerank.config import Config, ConfigError, dump, load, milliseconds
from prerank.data import Dataset, prepare
from prerank.data.encoder import digest
from prerank.datasets import resolve
from prerank.metrics import auc, gauc, logloss, sigmoid
from prerank.report import over_time
from prerank.training import Progress, Quiet
from prerank.training.checkpoint import write_text
from prerank.training.lock import locked
from prerank.training.online import Order, State, check_rehearsal, id_vocabularies, in_time, stream

WINDOW, POINTS = 20_000, 100  # rows of a sliding window, and how many of them are measured
SAY = 20  # times that the running window is told of
Metrics = dict[str, float]


@dataclass(frozen=True, slots=True)
class Replayed:
    """Scores of every row and what they are worth.

    order, labels [n, T], groups [n]   impressions in order of time; groups are what GAUC goes by
    prequential [n, T], frozen [n - order.test, T]   logits
    metrics    {protocol: {label: {auc, logloss, gauc}}} of the test rows; 'before': of the rows before them, prequential
    windows    {label: [{ts, rows, auc, logloss, gauc}]} prequential, over the whole log
    """

    folder: Path
    order: Order
    labels: NDArray[np.float32]
    groups: NDArray[np.int64]
    prequential: NDArray[np.float32]
    frozen: NDArray[np.float32]
    metrics: dict[str, dict[str, Metrics]]
    windows: dict[str, list[Metrics]]
    seconds: float
    cpu_seconds: float


def replay(config: Config, *, resume: bool = False, overwrite: bool = False, sort: bool = True, window: int | None = WINDOW,
           progress: Progress | None = None, preparing: Callable[[str, float], None] | None = None) -> Replayed:  # fmt: skip
    """Prepare the data and run the log through the model in `config.output`. Raises ConfigError, DataError and what `stream` raises.

    sort     a log whose time runs backwards is sorted; without it, refused
    window   rows of a sliding window; None: neither windows nor a picture of them
    """
    if window is not None and window < 2:
        raise ConfigError(f"window: must be at least 2 rows; got {window}")
    folder, progress = Path(config.output), progress or Quiet()
    resolved = config.model_copy(update={"data": resolve(config.data)})
    if resolved.training.lists is not None:
        raise ConfigError("training.lists: a pass in order of time learns from impressions, row by row; leave it out")
    schema = resolved.data.schema_()
    build.check_terms(config, resolved.data, schema)
    check_rehearsal(build.check_model(config.model, schema, config.objective, config.synergy), config.training)
    with locked(folder):
        _claim(folder, config, resume, overwrite)
        dataset = prepare(resolved.data, progress=preparing)
        order = in_time(dataset, sort=sort)
        torch.manual_seed(config.training.seed)
        space = build.space(config, digest(dataset.encoders))
        model: Any = build.model(config.model, dataset.schema, dataset.sizes, config.synergy, space=space)
        if space is not None:
            _begin_outside(model, resume, overwrite)
        if config.training.rehearsal and (held := id_vocabularies(model, dataset.schema)):
            progress.say(f"training.rehearsal: the model holds vectors of {' and '.join(held)}, which know the labels of rows that are "
                         "learned from once more; docs/replay.md has a model without them")  # fmt: skip
        cms = config.synergy.cms if config.synergy else None
        ranker = build.beside(cms, dataset.schema, dataset.sizes) if cms and cms.ranker else None
        objective = build.objective(config.objective, dataset.schema, dataset.counts)
        write_text(folder / "config.yaml", dump(config))
        labels = np.asarray(dataset.labels[order.rows])
        groups = np.asarray(dataset.user_row if dataset.request is None else dataset.request)[order.rows].astype(np.int64)
        delay = milliseconds(resolved.data.label_delay) if resolved.data.label_delay else 0
        watch = _Watch(progress, order, labels[:, 0] > 0, config.training.batch_size, window)
        state = stream(model, objective, dataset, order, config.training, folder, delay=delay, ranker=ranker, resume=resume,
                       told=watch)  # fmt: skip
        progress.close()
        replayed = _measured(folder, config, dataset, order, labels, groups, state, window)
        _write(replayed, config)
    return replayed


def summary(runs: Sequence[Replayed]) -> dict[str, dict[str, dict[str, tuple[float, float]]]]:
    """{protocol: {label: {metric: (mean, deviation over runs)}}}"""
    return {
        protocol: {label: {m: _spread([r.metrics[protocol][label][m] for r in runs]) for m in metrics} for label, metrics in of.items()}
        for protocol, of in runs[0].metrics.items()
    }


class _Watch:
    """Tells of every batch, and now and then of the last window."""

    def __init__(self, progress: Progress, order: Order, positive: NDArray[np.bool_], size: int, window: int | None) -> None:
        self.progress, self.order, self.positive, self.size, self.window = progress, order, positive, size, window
        self.steps = len(order.ends(size))

    def __call__(self, state: State) -> None:
        done = state.rows
        self.progress.step(1, state.step, self.steps, self.size, state.loss)
        if self.window is not None and state.step % max(1, self.steps // SAY) == 0:
            part = slice(max(0, done - self.window), done)
            found = _metrics(state.logits[part, 0], self.positive[part], None)
            when = datetime.fromtimestamp(self.order.ts[done - 1] / 1000, UTC)
            numbers = "  ".join(f"{name} {value:.4f}" for name, value in found.items())
            self.progress.say(f"{when:%Y-%m-%d %H:%M}  {done:,} rows  last {part.stop - part.start:,}: {numbers}")


def _measured(folder: Path, config: Config, dataset: Dataset, order: Order, labels: NDArray[np.float32], groups: NDArray[np.int64],
              state: State, window: int | None) -> Replayed:  # fmt: skip
    learned = [n for n in dataset.schema.objectives if n not in build.unlearned(config.objective, dataset.schema)]
    n, test = len(order.rows), order.test
    parts = {"prequential": (slice(test, n), state.logits[test:]), "frozen": (slice(test, n), state.frozen),
             "before": (slice(0, test), state.logits[:test])}  # fmt: skip
    metrics: dict[str, dict[str, Metrics]] = {}
    windows: dict[str, list[Metrics]] = {}
    cuts = [] if window is None else [slice(max(0, int(end) - window), int(end))
                                      for end in np.unique(np.linspace(min(window, n), n, POINTS).astype(np.int64))]  # fmt: skip
    for name in learned:
        t = dataset.schema.objectives.index(name)
        y = labels[:, t] > 0
        for protocol, (rows, logits) in parts.items():
            metrics.setdefault(protocol, {})[name] = _metrics(logits[:, t], y[rows], groups[rows])
        windows[name] = [{"ts": int(order.ts[c.stop - 1]), "rows": c.stop - c.start, **_metrics(state.logits[c, t], y[c], groups[c])}
                         for c in cuts]  # fmt: skip
    return Replayed(folder, order, labels, groups, state.logits, state.frozen, metrics, windows, state.seconds, state.cpu_seconds)


def _metrics(logits: NDArray[np.float32], positive: NDArray[np.bool_], groups: NDArray[np.int64] | None) -> Metrics:
    """AUC, LogLoss and, with groups, GAUC; NaN where one class alone is there."""
    both = bool(positive.any() and not positive.all())
    found = {"auc": float(auc(logits, positive)) if both else float("nan"), "logloss": float(logloss(sigmoid(logits), positive))}
    if groups is not None:
        found["gauc"] = _gauc(logits, positive, groups)
    return found


def _gauc(logits: NDArray[np.float32], positive: NDArray[np.bool_], groups: NDArray[np.int64]) -> float:
    try:
        return float(gauc(logits, positive, groups).value)
    except ValueError:  # no group has both classes
        return float("nan")


def _write(replayed: Replayed, config: Config) -> None:
    folder, order = replayed.folder, replayed.order
    np.savez(folder / "scores.npz", rows=order.rows, ts=order.ts, test=order.test, labels=replayed.labels, groups=replayed.groups,
             prequential=replayed.prequential, frozen=replayed.frozen)  # fmt: skip
    told = {
        "name": config.name, "model": config.model.name, "seed": config.training.seed, "label_delay": config.data.label_delay,
        "rows": len(order.rows), "test_rows": len(order.rows) - order.test, "test_from_ms": int(order.ts[order.test]),
        "seconds": round(replayed.seconds, 2), "cpu_seconds": round(replayed.cpu_seconds, 2),
        "metrics": replayed.metrics, "windows": replayed.windows, "torch": torch.__version__,
        "written": datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    write_text(folder / "replay.json", json.dumps(told, indent=1))
    if any(replayed.windows.values()):
        over_time(replayed.windows, folder / "replay.png", since=int(order.ts[order.test]), title=config.name)


def _begin_outside(model: Any, resume: bool, overwrite: bool) -> None:
    """Open the stores that lie outside the model, which must be empty. Raises ConfigError, StoreError."""
    if resume:
        raise ConfigError("synergy.store: what was written outside since the last checkpoint would be written again, so that a run with "
                          "a store outside cannot be resumed; start again with --overwrite")  # fmt: skip
    for store in model.outside:
        store.begin()
        if overwrite:
            store.clear()
        if held := len(store):
            raise ConfigError(f"synergy.store: {store!r} holds {held:,} ids already, and a pass over the log begins with none; name "
                              "another, or forget them with --overwrite")  # fmt: skip


def _claim(folder: Path, config: Config, resume: bool, overwrite: bool) -> None:
    """Raise ConfigError where a run is in the way, or another one is to be resumed."""
    before = folder / "config.yaml"
    if before.exists() and overwrite:
        before.unlink()
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    elif before.exists() and not resume:
        raise ConfigError(
            f"run folder '{folder}': holds a run already; continue it with --resume, replace it with --overwrite, or set output"
        )
    elif before.exists() and load(before) != config:
        raise ConfigError(f"run folder '{folder}': was started with other settings; resume needs the same ones ({before})")


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
