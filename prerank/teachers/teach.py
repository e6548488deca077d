"""From configs of rankers to a log with their opinion: folds, weights, scores, vectors, one file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prerank import build
from prerank.config import Config, ConfigError
from prerank.data import Dataset, Table
from prerank.datasets import resolve
from prerank.ensembles import ensemble
from prerank.metrics import auc, sigmoid
from prerank.run import open_run
from prerank.teachers import annotate, progressive
from prerank.teachers.fold_log import By, FoldLog, make
from prerank.teachers.members import CHUNK, Job, jobs, logits, run_jobs
from prerank.training import Progress, Quiet
from prerank.training.checkpoint import write_text
from prerank.training.lock import locked

SCORE = "teacher_score"
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Taught:
    """What `teach` wrote.

    weights   {label: {member: weight}}
    auc       {label: {'train, out of fold' | 'validation' | 'test': AUC of the score}}; a split without both classes is left out
    """

    out: Path
    rows: int
    scored: int
    weights: dict[str, dict[str, float]]
    auc: dict[str, dict[str, float]]


def teach(members: Mapping[str, Config], out: str | Path, *, folds: int = 5, by: By = "pair", seed: int = 0, hidden: Config | None = None,
          blocks: int = 20, resume: bool = False, overwrite: bool = False, say: Callable[[str], None] = lambda line: None,
          progress: Callable[[], Progress] = Quiet, preparing: Callable[[str, float], None] | None = None) -> Taught:  # fmt: skip
    """Write the log of the members' data to `out` with `teacher_score`, and `teacher_hidden` if asked for.

    members   {name: config of a ranker}, all over the same log, split and labels; several are weighted as `prerank ensemble` does
    folds     the score of a train row is by models that were fitted without its fold; validation and test rows by models of all train rows
    by        what stays in one fold: rows of a user and item (`pair`), or all of a `user`'s
    hidden    config of the ranker that gives the vectors, see progressive.py;  blocks   of its walk
    The score is the probability of the config's first label; of several labels each has a column teacher_score_LABEL as well.
    Everything is kept in the folder beside `out` named as it is, without its ending, and `.runs`. Raises ConfigError, DataError.
    """
    path = Path(out)
    folder = path.with_name(f"{path.stem}.runs")
    resolved = _check(members, hidden, path)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        _claim(folder, path, resume, overwrite)
        log = make(resolved.data, folder, folds=folds, by=by, seed=seed, preparing=preparing)
        names = list(log.dataset.schema.objectives)
        todo = jobs(dict(members), log, folder)
        run_jobs(todo, log, say=say, progress=progress)
        weights = _weights(todo, log.dataset, folder)
        scores = _scores(todo, log, [weights[name] for name in names], folder)
        vectors = None
        if hidden is not None:
            alone = hidden.model_copy(update={"data": log.data})
            vectors = np.load(progressive.annotate(alone, log.dataset, folder / "hidden", blocks=blocks, say=say), mmap_mode="r")
        columns = {SCORE: scores[:, 0]} | ({f"{SCORE}_{n}": scores[:, t] for t, n in enumerate(names)} if len(names) > 1 else {})
        rows = annotate.write(Table(log.data.log or "", "log"), path, log.kept, columns, vectors)
        named = {name: dict(zip(members, weights[name], strict=True)) for name in names}
        taught = Taught(path, rows, int((~np.isnan(scores[:, 0])).sum()), named, _auc(scores, log.dataset))
        said = {"folds": folds, "by": by, "seed": seed, "rows": rows, "scored": taught.scored, "weights": named, "auc": taught.auc,
                "blocks": blocks if hidden is not None else None}  # fmt: skip
        write_text(folder / "teach.json", json.dumps(said, indent=1))
    return taught


def _check(members: Mapping[str, Config], hidden: Config | None, out: Path) -> Config:
    """The first config with its recipe resolved, after everything that can be told beforehand. Raises ConfigError, DataError."""
    if not members:
        raise ConfigError("teach: needs at least one config; got none")
    if out.suffix.lower() not in (".parquet", ".pq"):
        raise ConfigError(f"out '{out}': must be a Parquet file")
    named = {**members, **({"hidden": hidden} if hidden is not None else {})}
    resolved = {name: c.model_copy(update={"data": resolve(c.data)}) for name, c in named.items()}
    first = next(iter(resolved.values()))
    for name, config in resolved.items():
        schema = config.data.schema_()
        build.objective(config.objective, schema)
        build.check_model(config.model, schema, config.objective)
        for part in ("log", "split", "drop", "labels", "deduplicate", "user_id", "item_id", "time", "stage"):
            if getattr(config.data, part) != getattr(first.data, part):
                raise ConfigError(
                    f"teach: all configs must have the same data.{part}; those of '{next(iter(resolved))}' and '{name}' differ"
                )
    columns = [SCORE, *(f"{SCORE}_{n}" for n in first.data.labels if len(first.data.labels) > 1)]
    annotate.check(Table(first.data.log or "", "log"), out, [*columns, *([annotate.HIDDEN] if hidden is not None else [])])
    return first


def _claim(folder: Path, out: Path, resume: bool, overwrite: bool) -> None:
    """A teaching that was begun is continued or thrown away only when that is asked for."""
    if resume or not ((folder / "folds.json").exists() or out.exists()):
        return
    if not overwrite:
        raise ConfigError(
            f"out '{out}': holds a teacher, or one was begun in '{folder}'; continue it with --resume, replace it with --overwrite"
        )
    for inner in folder.iterdir():
        if inner.name != ".lock":
            shutil.rmtree(inner) if inner.is_dir() else inner.unlink()


def _weights(todo: list[Job], dataset: Dataset, folder: Path) -> dict[str, list[float]]:
    """{label: [M]}: fitted on validation by the members that saw all of train; equal ones when there are no validation or test rows."""
    whole = [job for job in todo if job.fold is None]
    names = dataset.schema.objectives
    if len(whole) == 1 or not (len(dataset.rows("validation")) and len(dataset.rows("test"))):
        return {name: [1 / len(whole)] * len(whole) for name in names}
    return ensemble([open_run(job.folder) for job in whole], folder / "ensemble", resamples=0, overwrite=True).weights


def _scores(todo: list[Job], log: FoldLog, weights: list[list[float]], folder: Path) -> Floats:
    """Probabilities of all rows, each by the models that have not seen it; a mapped file.  # float32 [R, T]"""
    shape = (len(log.dataset), len(weights))
    scores = np.lib.format.open_memmap(folder / "scores.npy", mode="w+", dtype=np.float32, shape=shape)
    scores[:] = np.nan
    w = np.array(weights).T  # [M, T]
    for fold, members in logits(todo):
        rows = log.scored_by(fold)
        for first in range(0, len(rows), CHUNK):
            part = slice(first, first + CHUNK)
            scores[rows[part]] = sigmoid(np.einsum("mt,mnt->nt", w, np.stack([z[part] for z in members])))
    return scores


def _auc(scores: Floats, dataset: Dataset) -> dict[str, dict[str, float]]:
    """See Taught.auc; impressions only."""
    found: dict[str, dict[str, Any]] = {}
    for t, name in enumerate(dataset.schema.objectives):
        found[name] = {}
        for split, said in (("train", "train, out of fold"), ("validation", "validation"), ("test", "test")):
            rows = dataset.rows(split)
            y = dataset.labels[rows, t] > 0
            if 0 < y.sum() < len(y):
                found[name][said] = float(auc(scores[rows, t], y))
    return found
