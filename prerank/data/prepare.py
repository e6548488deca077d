"""From the user's files to a prepared data set: encoded once, opened from the cache ever after.

    dataset = prepare(config.data)

Two walks over the log in batches: the first fits (`fit`), the second writes (`write`). Memory holds
the entities and the distinct values, never the log (but see `derive`). The folder is written under
a temporary name and renamed whole: a crash, a full disk or a second preparation at the same time
never leaves a half-written one under its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prerank.batch import Stage
from prerank.config import Data
from prerank.data import derive, encoder
from prerank.data.asof import Running
from prerank.data.asof_log import statistics
from prerank.data.dataset import Dataset
from prerank.data.errors import DataError, writing
from prerank.data.fit import Walk, fit
from prerank.data.log import Log
from prerank.data.sources import Sources, find
from prerank.data.split import NAMES, Splitter, time_cuts
from prerank.data.values import as_type, value_type
from prerank.data.write import write

FORMAT = 2  # of the folder; a change makes every cache stale
_ABANDONED = 24 * 3600.0  # seconds after which another process's temporary folder is rubbish
Progress = Callable[[str, float], None]  # stage, part done in [0, 1]


def prepare(data: Data, *, progress: Progress | None = None) -> Dataset:
    """Encode the log and its tables, or open what was encoded before.

    data       log, labels and features filled in (recipes are resolved before)
    progress   called with a stage's name and the part of it that is done

    Raises DataError naming every wrong column at once, or the first wrong value with its row.
    """
    sources = find(data)
    mark = fingerprint(sources)
    root = Path(data.cache or os.environ.get("PRERANK_CACHE") or Path.home() / ".cache" / "prerank").expanduser()
    folder = root / mark
    if folder.exists():
        with contextlib.suppress(DataError):  # damaged: prepare again
            return Dataset(folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        with _temporary(root, mark) as building, writing(root):
            _build(sources, mark, building, _Ticker(progress, sources.log.rows))
            if fingerprint(sources) != mark:
                raise DataError(f"log '{sources.log.path}': a file changed while it was read; prepare again")
            _rename(building, folder)
    except OSError as error:
        raise DataError(f"cache '{root}': cannot be written: {error.strerror or error}") from None
    return Dataset(folder)


def fingerprint(sources: Sources) -> str:
    """16 hex digits that change with any file (name, size, time of change) or setting that the columns depend on."""
    settings = sources.data.model_dump(mode="json", exclude={"recipe", "options", "log", "users", "items", "cache", "candidates"})
    tables = [t.stamp() if t else None for t in (sources.log, sources.users, sources.items)]
    tables += [sources.candidates.stamp()] if sources.candidates else []
    text = json.dumps([FORMAT, settings, tables])  # keys unsorted: the order of labels is the order of the objectives
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Ticker:
    """Turns rows done into parts of a stage."""

    def __init__(self, progress: Progress | None, rows: float) -> None:
        self._progress, self._rows = progress, max(rows, 1.0)
        self._stage, self._done = "", 0

    def stage(self, name: str) -> None:
        self._stage, self._done = name, 0

    def __call__(self, rows: int) -> None:
        self._done += rows
        if self._progress:
            self._progress(self._stage, min(1.0, self._done / self._rows))


def _build(sources: Sources, mark: str, folder: Path, tick: _Ticker) -> None:
    """Write everything into an empty folder."""
    data = sources.data
    tick.stage("reading the log")
    log = Log(sources.log, data, sources.candidates)
    splitter = _splitter(log, sources, folder)
    walk = Walk(sources, log, splitter, {})
    made: dict[str, derive.Statistic | derive.History | Running] = dict(_derive(walk)) if data.derive else {}
    if data.asof:
        made |= statistics(walk)
    walk = Walk(sources, log, splitter, made)
    fitted = fit(walk, tick)
    tick.stage("writing columns")
    write(walk, fitted, folder, tick)
    (folder / "encoders").mkdir()
    encoder.save(fitted.encoders, folder / "encoders")
    running = [f.name for f in sources.by_row() if isinstance(made.get(f.source), Running)]
    edges = {name: m.edges for name, m in made.items() if isinstance(m, Running) and m.edges}
    described = {
        "format": FORMAT,
        "fingerprint": mark,
        "schema": sources.schema.model_dump(mode="json"),
        "log": [f.name for f in sources.by_row()],
    } | ({"frozen": running, "edges": edges} if running else {}) | ({"made": fitted.made} if fitted.made else {})  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(described))


def _splitter(log: Log, sources: Sources, folder: Path) -> Splitter:
    """A split by time needs its two cuts first; times are spooled to disk, as memory may not hold them."""
    data = sources.data
    if data.split.kind != "time":
        return Splitter(data.split)
    assert data.time is not None
    spool = folder / "times"
    with spool.open("wb") as file:
        for events in log.walk({data.time: sources.log_columns()[data.time]}):
            if events.made:
                break  # the cuts are the log's own
            times = log.times(events)
            assert times is not None
            file.write(times.data)

    def chunks() -> Iterator[NDArray[np.int64]]:
        with spool.open("rb") as file:
            while len(chunk := np.fromfile(file, np.int64, 1 << 20)):
                yield chunk

    cuts = time_cuts(data.split, log.clock, chunks) if spool.stat().st_size else (0.0, 0.0)
    spool.unlink()
    return Splitter(data.split, cuts)


def _derive(walk: Walk) -> dict[str, derive.Statistic | derive.History]:
    """Derived columns of all kept rows; this one needs the columns it reads in memory."""
    sources = walk.sources
    settings = sources.derived.values()
    log_columns = sources.log_columns() | {d.of: None for d in settings if d.of}
    wanted = {d.by for d in settings} | {d.of for d in settings if d.of}
    raw: dict[str, list[pl.Series]] = {c: [] for c in sorted(wanted)}
    ts, splits, labels, shown = [], [], [], []
    for events in walk.log.walk(log_columns):
        for column, parts in raw.items():
            own = value_type(sources.log.columns[column])
            parts.append(as_type(events.frame[column], own, f"derived column, '{column}'", events.place))
        times = walk.log.times(events)
        ts.append(np.zeros(len(events.frame), np.int64) if times is None else times)
        splits.append(walk.split(events, walk.ids(events, "user")))
        stage = walk.stages(events)
        labels.append(sources.labels.compute(events.frame, events.place, stage))
        shown.append(np.ones(len(events.frame), bool) if stage is None else stage == Stage.IMPRESSION)
    if not splits:
        raise DataError(f"log '{sources.log.path}': nothing to learn from, no row is kept")
    columns = {c: pl.concat(parts) for c, parts in raw.items()}
    impression, y, when = np.concatenate(shown), np.concatenate(labels), np.concatenate(ts)
    train = (np.concatenate(splits) == NAMES["train"]) & impression
    of_label = {n: y[:, t].astype(np.float64) for t, n in enumerate(sources.data.labels)}
    found: dict[str, derive.Statistic | derive.History] = {}
    for d in settings:
        if d.kind == "history":
            positive = impression & (of_label[d.label] > 0) if d.label else impression
            beyond = sources.data.split.kind != "random"
            found[d.name] = derive.history(d, columns[d.by], columns[d.of or ""], when, train, positive, beyond)
        elif d.kind == "target_mean":
            how = derive.how_of(d, sources.data.split)
            found[d.name] = derive.target_mean(d, how, columns[d.by], train, of_label[d.label or ""], when)
        else:
            found[d.name] = derive.count(columns[d.by], train)
    return found


@contextlib.contextmanager
def _temporary(root: Path, mark: str) -> Iterator[Path]:
    """A folder of our own beside the final one, gone at the end unless it was renamed."""
    building = Path(tempfile.mkdtemp(prefix=f".{mark}.", suffix=".tmp", dir=root))
    try:
        yield building
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _rename(building: Path, folder: Path) -> None:
    """Put the folder under its name; when another preparation was first, its equal result stays, unless it is damaged."""
    try:
        building.rename(folder)
    except OSError:
        try:
            Dataset(folder)
        except DataError:
            shutil.rmtree(folder)
            building.rename(folder)


def _sweep(root: Path) -> None:
    """Remove temporary folders that a killed preparation left behind."""
    for left in root.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED:
                shutil.rmtree(left, ignore_errors=True)
