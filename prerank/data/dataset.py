"""A prepared data set: memory-mapped columns in a folder, and the encoders that made them.

What `prepare` returns; opening one reads little more than its description:

    Dataset(folder)
    <Dataset 739012 rows (591209 train, 73902 validation, 73901 test), 6040 users, 3883 items, 7 features, labels: positive>
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from prerank.batch import Columns, Stage
from prerank.data import encoder
from prerank.data.columns import file_of, open_column
from prerank.data.errors import DataError
from prerank.data.split import NAMES
from prerank.schema import Schema

Side = Literal["user", "item"]
IMPRESSIONS: tuple[Stage, ...] = (Stage.IMPRESSION,)
ALL: tuple[Stage, ...] = tuple(Stage)


class Dataset:
    """Opened from a folder; nothing is read until it is used.

    path, fingerprint, schema
    sizes                 {vocabulary: rows of its table}
    counts                {vocabulary: int64 [rows]} occurrences in train impressions;  counts_every   in train rows of every stage
    encoders              {feature: Encoder}
    edges                 {statistic: {key column: inner edges of its bins}} of `data.asof`, for `RunningState`
    log, users, items     {feature: column}: by log row; by user; by item
    user_ids, item_ids    raw ids of the rows of users and items
    user_row, item_row    int32 [R] log row -> row of users, items
    user_key, item_key    int64 [R] equal for log rows with equal columns of the side; None when the entity decides them all
    labels float32 [R, T];  split uint8 [R];  ts int64 [R] ms or None;  request int64 [R] or None
    logged                rows of the log; those after them are of the table of candidates, which has ids but no columns of the log
    stage int8 [R] or None: all rows are impressions;  teacher float32 [R], NaN where missing, or None;  bid float32 [R] or None
    """

    def __init__(self, path: str | Path) -> None:
        """Raises DataError when the folder is missing or not whole."""
        self.path = Path(path)
        try:
            described = json.loads((self.path / "dataset.json").read_text())
            self.schema = Schema.model_validate(described["schema"])
            self.fingerprint: str = described["fingerprint"]
            made: int = described.get("made", 0)
            self.user_ids = pl.read_parquet(self.path / "user_ids.parquet")["id"]
            self.item_ids = pl.read_parquet(self.path / "item_ids.parquet")["id"]
        except (OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
            raise DataError(f"prepared data '{path}': not a whole folder: {str(error).splitlines()[0]}") from None
        features = self.schema.features
        self.encoders = encoder.load(self.path / "encoders")
        self.log = {name: self._open(f"log/{file_of(name)}") for name in described["log"]}
        self.edges: dict[str, dict[str, list[float]]] = described.get("edges", {})
        self._frozen = {name: self._open(f"frozen/{file_of(name)}") for name in described.get("frozen", ())}
        self.users = {f.name: self._open(f"users/{file_of(f.name)}") for f in features if f.side == "user"}
        self.items = {f.name: self._open(f"items/{file_of(f.name)}") for f in features if f.side == "item"}
        owners = [f.name for f in features if f.embedded and f.share is None]
        self.counts = {name: self._open(f"counts/{file_of(name)}") for name in owners}
        every = (self.path / "counts-every").exists()
        self.counts_every = {n: self._open(f"counts-every/{file_of(n)}") for n in owners} if every else self.counts
        self.sizes = {name: len(counts) for name, counts in self.counts.items()}
        self.user_row, self.item_row = self._open("user_row.npy"), self._open("item_row.npy")
        self.labels, self.split = self._open("labels.npy"), self._open("split.npy")
        self.ts, self.request = self._optional("ts.npy"), self._optional("request.npy")
        self.stage, self.teacher, self.bid = (self._optional(f"{name}.npy") for name in ("stage", "teacher", "bid"))
        self.user_key, self.item_key = self._optional("user_key.npy"), self._optional("item_key.npy")
        self.logged = len(self.split) - made
        self._rows = {name: self._open(f"rows/{name}.npy") for name in NAMES}
        self._every = {name: self._optional(f"rows/{name}-every.npy") for name in NAMES}

    def rows(self, split: str, stages: Collection[Stage] | None = IMPRESSIONS) -> NDArray[np.int64]:
        """Log rows of train, validation or test, ascending: its impressions, or the rows of other stages too (None, ALL: of every stage).

        Raises DataError for another split.  # [n]
        """
        if split not in self._rows:
            raise DataError(f"split must be one of {', '.join(self._rows)}; got '{split}'")
        wanted, every = set(ALL if stages is None else stages), self._every[split]
        if wanted == set(IMPRESSIONS) or (every is None and Stage.IMPRESSION in wanted):
            return self._rows[split]
        if every is None or self.stage is None:
            return np.empty(0, np.int64)
        return every if wanted == set(ALL) else every[np.isin(self.stage[every], [int(s) for s in wanted])]

    def frozen(self) -> Dataset:
        """The same rows with running statistics (`data.asof`) as they stood when the test rows began."""
        view = copy.copy(self)
        view.log = {**self.log, **self._frozen}
        view.user_key = view.item_key = None
        return view

    def interactions(self, split: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Rows of both id vocabularies, and how many labels are positive, of a split's log rows.  # [n], [n], [n]"""
        rows = self.rows(split)
        users = self.users[self.schema.user_id][self.user_row[rows]]
        items = self.items[self.schema.item_id][self.item_row[rows]]
        return users.astype(np.int64), items.astype(np.int64), (self.labels[rows] > 0).sum(axis=1)

    def entity(self, side: Side) -> dict[str, NDArray[Any]]:
        """The table of one side."""
        return self.users if side == "user" else self.items

    def columns(self, side: Side, log_rows: NDArray[np.int64]) -> Columns:
        """Columns of the side's features for log rows [n]: the log's where there are any, else the entity's."""
        entity = (self.user_row if side == "user" else self.item_row)[log_rows]
        table = self.entity(side)
        names = [f.name for f in self.schema.on(side)]
        return {n: torch.from_numpy(self.log[n][log_rows] if n in self.log else table[n][entity]) for n in names}

    def _open(self, name: str) -> NDArray[Any]:
        return open_column(self.path / name)

    def _optional(self, name: str) -> NDArray[Any] | None:
        return self._open(name) if (self.path / name).exists() else None

    def __len__(self) -> int:
        return len(self.split)

    def __repr__(self) -> str:
        parts = ", ".join(f"{len(rows)} {name}" for name, rows in self._rows.items())
        return (
            f"<Dataset {len(self)} rows ({parts}), {len(self.user_ids)} users, {len(self.item_ids)} items, "
            f"{len(self.schema.features)} features, labels: {', '.join(self.schema.objectives)}>"
        )
