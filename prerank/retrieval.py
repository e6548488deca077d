"""Candidates of an earlier stage for a log that holds impressions alone: a two-tower retrieves from all items, what is known is removed.

    made = retrieve(run, "runs/cascade/candidates.parquet", count=100)

RankTower's protocol ("candidates = retrieved by a YouTube-style two-tower minus the interacted"; Covington, Adams, Sargin, RecSys 2016: a
softmax over items on positives, here in_batch_softmax with its logQ correction). The search is exact: every user meets every item.

Removed are the items that the user has an impression of in the log, of ANY split (`remove: all`, the paper's): a candidate is labelled 0,
and one that is clicked in the test part would be a false negative there, and in training. The price: that a retrievable item is
missing from a user's candidates says that it was, or will be, shown. `remove: train` knows nothing of the future, and has those false
negatives.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import nn

from prerank.batch import Columns, Representation, Stage
from prerank.config import ConfigError, Data
from prerank.data import Dataset
from prerank.data.errors import writing
from prerank.data.log import Log
from prerank.data.sources import find
from prerank.index import ItemMatrix, top_k
from prerank.run import Run
from prerank.serving.export import item_columns, user_columns
from prerank.towers import TwoTower
from prerank.training import evaluating

By = Literal["user", "request"]
Remove = Literal["all", "train"]
SCORE = "retrieval_score"
BATCH = 1024  # users encoded at a time, and a row group of the file
SPLITS = ("train", "validation", "test")
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Made:
    """What `retrieve` wrote.

    lists, rows    users or requests, and their candidates; short: lists with fewer than asked for, as no more items were left
    recall         share of a user's validation positives among its best `count` items, those of train left out; mean over
                   `measured` users; NaN without validation rows
    """

    out: Path
    lists: int
    rows: int
    short: int
    recall: float
    measured: int


class Known:
    """The items of each user's log rows, and the rows.  # CSR: items[start[u] : start[u + 1]]"""

    def __init__(self, dataset: Dataset, rows: Ints) -> None:
        users = np.asarray(dataset.user_row[rows])
        order = np.argsort(users, kind="stable")
        self.rows = rows[order]
        self.items = np.asarray(dataset.item_row[rows])[order].astype(np.int64)
        self.start = np.searchsorted(users[order], np.arange(len(dataset.user_ids) + 1))

    def __getitem__(self, user: int) -> Ints:
        return self.items[self.start[user] : self.start[user + 1]]

    def draw(self, users: Ints, random: np.random.Generator) -> Ints:
        """One of each user's rows [n], by lot."""
        start = self.start[users]
        return self.rows[start + random.integers(0, self.start[users + 1] - start)]


def retrieve(run: Run, out: str | Path, *, count: int, drawn: int = 0, by: By = "user", remove: Remove = "all", objective: int = 0,
             progress: Callable[[int, int], None] = lambda done, total: None) -> Made:  # fmt: skip
    """Write the best `count` items of every user (or request) that it does not know: user, item, stage (recall), retrieval_score.

    The columns are named as the log's. By request the columns of request and time come with it, and the request's context
    (its first row's) is in the user's vector; by user there is no context, as when serving a request that gives none, and a
    candidate's time, where the log has times, is that of one of the user's impressions, by lot: a split by time deals both alike.
    `drawn` more items a list are drawn from all that are left, each as likely as any other (stage random, no retrieval_score): what a
    ranking model is to be asked about beside the candidates.
    Raises ConfigError for a model that is not decoupled, OSError.
    """
    path, dataset, data = Path(out), run.dataset, run.config.data
    if count < 1:
        raise ConfigError(f"count: must be at least 1; got {count}")
    if drawn < 0:
        raise ConfigError(f"random: must be at least 0; got {drawn}")
    if by == "request" and dataset.request is None:
        raise ConfigError("candidates: by request needs data.request, the column that names it")
    items = _items(run)
    everything = np.arange(len(items))
    train, known = Known(dataset, dataset.rows("train")), Known(dataset, np.concatenate([dataset.rows(s) for s in SPLITS]))
    removed = train if remove == "train" else known
    liked = _positives(dataset, "validation", objective)
    stage = data.stage.column if data.stage is not None else "stage"
    moments = _raw(data, np.arange(dataset.logged), (data.time,))[data.time] if by == "user" and data.time else None
    random = np.random.default_rng(run.config.training.seed)
    hits: dict[int, float] = {}
    lists = rows = short = 0
    temporary, writer = path.with_name(f".{path.name}.{os.getpid()}.tmp"), None
    total = len(np.unique(np.asarray(dataset.user_row))) if by == "user" else len(np.unique(np.asarray(dataset.request)))
    try:
        with writing(path):
            for part in _lists(run, by, data):
                found: list[Ints] = []
                scores: list[NDArray[np.float32]] = []
                stages: list[str] = []
                for user, flat, bias in zip(part.users, part.flat, part.bias, strict=True):
                    logits = items.score(flat, bias, everything)[:, objective]  # [N]
                    logits[train[user]] = np.nan
                    if user not in hits and len(liked[user]):
                        hits[user] = float(np.isin(liked[user], top_k(logits, min(count, len(items)))).mean())
                    logits[removed[user]] = np.nan
                    best = top_k(logits, min(count, len(items)))
                    more = _drawn(logits, best, drawn, random)
                    short += len(best) < count
                    found.append(np.concatenate([best, more]))
                    scores.append(np.concatenate([logits[best], np.full(len(more), np.nan, np.float32)]))
                    stages += [Stage.RECALL.name.lower()] * len(best) + [Stage.RANDOM.name.lower()] * len(more)
                lengths = np.array([len(f) for f in found])
                frame = part.frame(np.repeat(np.arange(len(found)), lengths))
                if moments is not None:
                    frame = frame.with_columns(moments.gather(known.draw(np.repeat(part.users, lengths), random)).alias(moments.name))
                frame = frame.with_columns(
                    dataset.item_ids.gather(np.concatenate(found)).alias(data.item_id),
                    pl.Series(stage, stages, dtype=pl.String),
                    pl.Series(SCORE, np.concatenate(scores), nan_to_null=True),
                )
                lists, rows = lists + len(found), rows + len(frame)
                arrow = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
                writer = writer or pq.ParquetWriter(temporary, arrow.schema, compression="zstd")
                writer.write_table(arrow)
                progress(lists, total)
            if writer is not None:
                writer.close()
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return Made(path, lists, rows, short, float(np.mean(list(hits.values()))) if hits else float("nan"), len(hits))


def _drawn(logits: NDArray[np.float32], best: Ints, count: int, random: np.random.Generator) -> Ints:
    """Up to `count` of the items that are neither known (NaN) nor among the best.  # [n]"""
    free = np.setdiff1d(np.flatnonzero(~np.isnan(logits)), best) if count else best[:0]
    return random.choice(free, min(count, len(free)), replace=False) if len(free) else free


@dataclass(frozen=True, slots=True)
class _Part:
    """Some users or requests: their rows in the user table, vectors [n, width], biases [n, T], and what is written of them."""

    users: list[int]
    flat: NDArray[np.float32]
    bias: NDArray[np.float32]
    columns: pl.DataFrame

    def frame(self, at: Ints) -> pl.DataFrame:
        return self.columns[at]


def _lists(run: Run, by: By, data: Data) -> Iterator[_Part]:
    """All users of the log, or all requests in the order of their first rows."""
    dataset = run.dataset
    if by == "user":
        seen = np.unique(np.asarray(dataset.user_row))
        for first in range(0, len(seen), BATCH):
            users = seen[first : first + BATCH].astype(np.int64)
            columns = pl.DataFrame({data.user_id: dataset.user_ids.gather(users)})
            yield _Part(users.tolist(), *_vectors(run, user_columns(dataset, users)), columns)
        return
    _, first_rows = np.unique(np.asarray(dataset.request), return_index=True)
    first_rows = np.sort(first_rows)
    raw = _raw(data, first_rows, [n for n in (data.request, data.time) if n])
    for first in range(0, len(first_rows), BATCH):
        rows = first_rows[first : first + BATCH]
        users = np.asarray(dataset.user_row[rows])
        columns = pl.DataFrame({data.user_id: dataset.user_ids.gather(users)}).hstack(raw[first : first + BATCH])
        yield _Part(users.tolist(), *_vectors(run, dataset.columns("user", rows)), columns)


def _raw(data: Data, rows: Ints, names: Sequence[str]) -> pl.DataFrame:
    """The log's own values of some columns in kept rows [n], ascending."""
    sources = find(data.model_copy(update={"candidates": None}))
    found = []
    for events in Log(sources.log, data).walk({n: sources.log.typed(n) for n in names}):
        low, high = np.searchsorted(rows, [events.first, events.first + len(events.frame)])
        found.append(events.frame[rows[low:high] - events.first])
    return pl.concat(found)


def check_retriever(model: nn.Module, name: str) -> TwoTower:
    """The model, when its items can be searched. Raises ConfigError."""
    if not isinstance(model, TwoTower) or not model.head.maxsim:
        raise ConfigError(f"candidates: model '{name}' cannot retrieve; take a two-tower whose score is a MaxSim of stored vectors "
                          "(dssm, mf, inttower, ..)")  # fmt: skip
    return model


def _items(run: Run) -> ItemMatrix:
    """All items, encoded. Raises ConfigError when the model cannot be searched."""
    model = check_retriever(run.model, run.config.model.name)
    dataset, flat, bias = run.dataset, [], []
    with evaluating(model), torch.inference_mode():
        for first in range(0, len(dataset.item_ids), BATCH):
            stored = model.encode("item", item_columns(dataset, slice(first, min(first + BATCH, len(dataset.item_ids)))))
            flat.append(stored.flat().float().numpy())
            bias.append(_bias(stored, len(dataset.schema.objectives)))
    groups = [(g.user_heads, g.item_heads, g.width, g.objective) for g in model.head.groups]
    return ItemMatrix.of(np.concatenate(flat), np.concatenate(bias), groups)


def _vectors(run: Run, columns: Columns) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Users' columns -> vectors [n, width] and biases [n, T]."""
    model = run.model
    assert isinstance(model, TwoTower)
    with evaluating(model), torch.inference_mode():
        stored = model.encode("user", columns)
    return stored.flat().float().numpy(), _bias(stored, len(run.dataset.schema.objectives))


def _bias(stored: Representation, objectives: int) -> NDArray[np.float32]:
    if stored.bias is None:
        return np.zeros((len(stored.groups[0]), objectives), np.float32)
    return stored.bias.detach().float().numpy()  # the head's own, of a model that learned


def _positives(dataset: Dataset, split: str, objective: int) -> Known:
    rows = dataset.rows(split)
    return Known(dataset, rows[np.asarray(dataset.labels[rows, objective]) > 0])
