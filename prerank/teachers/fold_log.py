"""The log with a split a fold: what a ranker of fold k may be fitted on, as columns that any run can read.

Rows that preparation drops are left out; the others stay in their order, with their own columns and

    teacher_split_whole   0 train, 1 validation, 2 test, as the user's own split has them
    teacher_split_0 ..    the same, but train rows of fold k are 2: the model of fold k is not fitted on them

A fold is thus an ordinary run over an ordinary log: its vocabularies, bins, derived columns and histories too are made without the rows
that it is going to score. Rows of one user and one item are always in one fold: the log may hold a pair several times, with the same label.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prerank.config import ConfigError, Data, Split
from prerank.data import DataError, Dataset, Table, prepare
from prerank.data.columns import open_column
from prerank.data.errors import writing
from prerank.data.hashing import combine, uniform
from prerank.data.log import Log
from prerank.data.sources import find
from prerank.data.split import NAMES
from prerank.training.checkpoint import write_text

By = Literal["pair", "user"]
PREFIX = "teacher_split_"
NO_FOLD = 255  # of rows that are not in the train part


@dataclass(frozen=True, slots=True)
class FoldLog:
    """A log in folds.

    path      the Parquet file that folds are trained on; R rows, those that preparation keeps
    data      the user's own settings (without teacher and candidates);  dataset   what they prepare
    fold      uint8 [R], NO_FOLD outside the train part
    kept      int64 [rows on disk]: which of the R rows it is (of exact duplicates: the first one's), -1 where it is dropped
    """

    path: Path
    data: Data
    dataset: Dataset
    folds: int
    fold: NDArray[np.uint8]
    kept: NDArray[np.int64]

    def data_of(self, fold: int | None, data: Data) -> Data:
        """A config's data settings for the model of a fold; None: of all train rows."""
        column = f"{PREFIX}{'whole' if fold is None else fold}"
        return data.model_copy(update={"log": str(self.path), "split": Split(kind="column", column=column), **_alone(data)})

    def scored_by(self, fold: int | None) -> NDArray[np.int64]:
        """The rows that the model of a fold scores: the fold's; None: all that are not in the train part.  # [n]"""
        return np.flatnonzero(self.fold == (NO_FOLD if fold is None else fold))


def make(data: Data, folder: Path, *, folds: int, by: By, seed: int, preparing: Callable[[str, float], None] | None = None) -> FoldLog:
    """Write the log in folds below `folder`, or open the one there. Raises ConfigError, DataError.

    data   resolved; folds are drawn by a hash of user and item (`pair`) or of the user alone
    """
    if folds < 2:
        raise ConfigError(f"folds: must be at least 2; got {folds}")
    if data.explode:
        raise ConfigError("teach: data.explode: a log of list columns cannot be annotated; write it with one row an entry first")
    data = data.model_copy(update=_alone(data))
    dataset = prepare(data, progress=preparing)
    said = {"fingerprint": dataset.fingerprint, "folds": folds, "by": by, "seed": seed}
    fold = _folds(dataset, folds, by, seed)
    if not _finished(folder, said):
        _write(data, dataset, fold, folds, folder)
        write_text(folder / "folds.json", json.dumps(said))
    return FoldLog(folder / "log.parquet", data, dataset, folds, fold, open_column(folder / "kept.npy"))


def frames(table: Table) -> Iterator[pl.DataFrame]:
    """All columns of a table, batch by batch; a CSV's text becomes the types told from its first rows."""
    parquet = table.files[0].suffix.lower() in (".parquet", ".pq")
    wanted: dict[str, pl.DataType | None] = {name: None if parquet else told for name, told in table.columns.items()}
    return (part.frame for part in table.batches(wanted))


def _alone(data: Data) -> dict[str, Any]:
    """What a teacher has no use for: it is trained on impressions, and is nobody's student; the rows are distinct already."""
    return {name: None for name in ("teacher", "candidates") if getattr(data, name, None) is not None}


def _folds(dataset: Dataset, folds: int, by: By, seed: int) -> NDArray[np.uint8]:
    """uint8 [R]. Raises ConfigError when a fold is empty."""
    columns = [dataset.user_row] if by == "user" else [dataset.user_row, dataset.item_row]
    drawn = (uniform(combine([np.asarray(c) for c in columns]), seed) * folds).astype(np.uint8)
    fold = np.where(np.asarray(dataset.split) == NAMES["train"], drawn, NO_FOLD).astype(np.uint8)
    rows = np.bincount(fold[dataset.rows("train")], minlength=folds)[:folds]
    if not rows.all():
        raise ConfigError(f"folds: fold {int(np.argmin(rows)) + 1} of {folds} has no train row (folds by {by}); take fewer")
    return fold


def _finished(folder: Path, said: dict[str, Any]) -> bool:
    """Whether the folder holds this very log. Raises ConfigError when it holds another."""
    mark = folder / "folds.json"
    if not mark.exists():
        return False
    if json.loads(mark.read_text()) != said:
        raise ConfigError(
            f"folder '{folder}': was started with other folds or another log; resume needs the same, --overwrite starts again"
        )
    return True


def _write(data: Data, dataset: Dataset, fold: NDArray[np.uint8], folds: int, folder: Path) -> None:
    table = Table(data.log or "", "log")
    taken = [c for c in table.columns if c.startswith(PREFIX)]
    if taken:
        raise DataError(f"log '{table.path}': has a column '{taken[0]}', a name that teaching needs")
    if shutil.disk_usage(folder).free < sum(size for _, size, _ in table.stamp()):
        raise DataError(f"folder '{folder}': has no room for a copy of the log")
    kept = _kept(data, table)
    np.save(folder / "kept.npy", kept)
    first, row, writer = 0, 0, None
    try:
        with writing(folder):
            for frame in frames(table):
                here = kept[first : first + len(frame)]
                first += len(frame)
                new = here > np.maximum.accumulate(np.concatenate([[row - 1], here]))[:-1]  # a duplicate points back at a row before
                part = frame.filter(pl.Series(new))
                rows = slice(row, row + len(part))
                row += len(part)
                part = part.with_columns(_splits(dataset.split[rows], fold[rows], folds))
                arrow = part.to_arrow(compat_level=pl.CompatLevel.oldest())
                writer = writer or pq.ParquetWriter(folder / "log.parquet", arrow.schema, compression="zstd")
                writer.write_table(arrow)
    finally:
        if writer is not None:
            writer.close()


def _splits(split: NDArray[np.uint8], fold: NDArray[np.uint8], folds: int) -> list[pl.Series]:
    """One column a model.  # int8 [n]"""
    held = [np.where(fold == k, NAMES["test"], split) for k in range(folds)]
    columns = {"whole": split, **{str(k): values for k, values in enumerate(held)}}
    return [pl.Series(f"{PREFIX}{name}", np.asarray(values, np.int8)) for name, values in columns.items()]


def _kept(data: Data, table: Table) -> NDArray[np.int64]:
    """int64 [rows on disk], see FoldLog.kept."""
    sources = find(data)
    numbers = np.concatenate([e.numbers for e in Log(sources.log, data).walk(sources.log_columns())])
    kept = np.full(sum(len(part.frame) for part in table.batches({data.user_id: None})), -1, np.int64)
    kept[numbers] = np.arange(len(numbers))
    if data.deduplicate:  # equal rows go together; the log will be deduplicated again, with the score among its columns
        columns: dict[str, pl.DataType | None] = dict.fromkeys(table.columns)
        hashes = np.concatenate([part.frame.hash_rows(seed=0).to_numpy() for part in table.batches(columns)])
        _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
        kept = kept[first[group]]
    return kept
