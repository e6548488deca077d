"""The rows of a split in lists: the candidates of each request, or of each user.

    lists = open_lists(dataset, "train", "request")
    lists.order[lists.offsets[7] : lists.offsets[8]]      log rows of list 7, impressions first

Grouped once and kept beside the prepared columns, memory-mapped. Rows are first dealt to buckets by a hash of their list, so that
grouping holds one bucket in memory, however long the log is. An item stands once in a list: of several rows the one furthest in the
cascade stays, of those the one with the most feedback. Candidates that the user liked in train (any label > 0) are no negatives:
with `filter` they are left out.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prerank.batch import Stage
from prerank.data.columns import Writer, open_column
from prerank.data.dataset import Dataset
from prerank.data.errors import DataError, writing
from prerank.data.hashing import mix

By = Literal["request", "user"]
Ints = NDArray[np.int64]
STAGES = len(Stage)
BUCKET = 1 << 22  # rows of a bucket, about: 300 MiB while it is sorted
_CHUNK = 1 << 20  # rows read at a time


@dataclass(frozen=True, slots=True)
class Found:
    """What grouping met with, each a number of lists or rows."""

    lists: int = 0
    rows: int = 0
    duplicates: int = 0  # rows of an item that its list has already
    liked: int = 0  # candidates that the user liked in train
    without_impressions: int = 0
    without_positives: int = 0
    of_one: int = 0
    without_teacher: int = 0  # rows, where the log has a teacher

    def __add__(self, other: Found) -> Found:
        return Found(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))


@dataclass(frozen=True, slots=True)
class Lists:
    """L lists of n rows.

    order      int64 [n] log rows, list after list, inside a list by stage and then as in the log
    offsets    int64 [L + 1] where each list begins
    sizes      int32 [L, stages] rows of each stage
    positive   bool [L] whether a label of an impression is > 0
    """

    order: Ints
    offsets: Ints
    sizes: NDArray[np.int32]
    positive: NDArray[np.bool_]
    found: Found

    def __len__(self) -> int:
        return len(self.sizes)

    def rows(self, lists: Ints) -> tuple[Ints, Ints]:
        """All rows of some lists [B], flat, and which of the B each belongs to.  # [n], [n]"""
        starts, lengths = self.offsets[lists], self.offsets[lists + 1] - self.offsets[lists]
        of = np.repeat(np.arange(len(lists)), lengths)
        ends = np.cumsum(lengths)
        return self.order[np.arange(len(of)) + np.repeat(starts - ends + lengths, lengths)], of

    def __repr__(self) -> str:
        return f"<Lists {len(self)} of {len(self.order)} rows>"


def open_lists(dataset: Dataset, split: str, by: By, *, filtered: bool = True) -> Lists:
    """Lists of a split's rows of every stage, grouped now if they are not yet. Raises DataError.

    filtered   without candidates that the user liked in train
    """
    folder = dataset.path / "lists" / f"{by}-{split}{'-filtered' if filtered else ''}"
    if not folder.exists():
        try:
            folder.parent.mkdir(exist_ok=True)
            with _building(folder) as temporary, writing(folder):
                _build(dataset, split, by, filtered, temporary)
        except OSError as error:
            raise DataError(f"cache '{folder}': cannot be written: {error.strerror or error}") from None
    order, offsets, sizes, positive = (open_column(folder / f"{n}.npy") for n in ("order", "offsets", "sizes", "positive"))
    return Lists(order, offsets, sizes, positive, Found(**json.loads((folder / "found.json").read_text())))


def train_items(dataset: Dataset) -> tuple[Ints, NDArray[np.int32]]:
    """Items of each user's train rows of every stage: user u's are items[offsets[u] : offsets[u + 1]].  # [users + 1], [n]"""
    folder = dataset.path / "lists" / "train-items"
    if not folder.exists():
        try:
            folder.parent.mkdir(exist_ok=True)
            with _building(folder) as temporary, writing(folder):
                _write_items(dataset, temporary)
        except OSError as error:
            raise DataError(f"cache '{folder}': cannot be written: {error.strerror or error}") from None
    return open_column(folder / "offsets.npy"), open_column(folder / "items.npy")


def _write_items(dataset: Dataset, folder: Path) -> None:
    """Two walks over the rows in parts: one counts, one puts each item into its user's next place."""
    rows = dataset.rows("train", None)
    parts = [rows[first : first + _CHUNK] for first in range(0, len(rows), _CHUNK)]
    counts = np.zeros(len(dataset.user_ids), np.int64)
    for part in parts:
        counts += np.bincount(dataset.user_row[part], minlength=len(counts))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    np.save(folder / "offsets.npy", offsets)
    items = np.lib.format.open_memmap(folder / "items.npy", "w+", np.int32, (len(rows),))
    following = offsets[:-1].copy()
    for part in parts:
        user = dataset.user_row[part]
        order = np.argsort(user, kind="stable")
        own = user[order]
        items[following[own] + np.arange(len(own)) - np.searchsorted(own, own)] = dataset.item_row[part[order]]
        following += np.bincount(user, minlength=len(following))
    items.flush()


@contextlib.contextmanager
def _building(folder: Path) -> Iterator[Path]:
    """A folder that takes its name at the end; of two processes that group at once, either's result is as good."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield temporary
        with contextlib.suppress(OSError):
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _build(dataset: Dataset, split: str, by: By, filtered: bool, folder: Path) -> None:
    if by == "request" and dataset.request is None:
        raise DataError("lists by request: the log names none; give data.request, or make lists by user")
    rows = dataset.rows(split, None)
    liked = liked_pairs(dataset) if filtered and dataset.stage is not None else np.empty(0, np.int64)
    total, offsets, sizes, positive = Found(), [np.zeros(1, np.int64)], [], []
    with (folder / "order.bin").open("wb") as file:
        for bucket in _buckets(dataset, rows, by, folder):
            order, start, size, good, found = _group(dataset, bucket, by, liked)
            file.write(order.data)
            offsets.append(start[1:] + offsets[-1][-1])
            sizes.append(size)
            positive.append(good)
            total += found
    with Writer(folder / "order.npy", np.int64, (total.rows,)) as writer, (folder / "order.bin").open("rb") as file:
        while len(part := np.fromfile(file, np.int64, _CHUNK)):
            writer.append(part)
    (folder / "order.bin").unlink()
    np.save(folder / "offsets.npy", np.concatenate(offsets))
    np.save(folder / "sizes.npy", np.concatenate([np.empty((0, STAGES), np.int32), *sizes]))
    np.save(folder / "positive.npy", np.concatenate([np.empty(0, bool), *positive]))
    (folder / "found.json").write_text(json.dumps(asdict(total)))


def _keys(dataset: Dataset, rows: Ints, by: By) -> Ints:
    """What the rows' lists are known by."""
    column = dataset.request if by == "request" else dataset.user_row
    assert column is not None
    return column[rows].astype(np.int64)


def _buckets(dataset: Dataset, rows: Ints, by: By, folder: Path) -> Iterator[Ints]:
    """The rows in parts that hold whole lists; beyond one part they are dealt out through files."""
    count = -(-len(rows) // BUCKET)
    if count <= 1:
        yield np.asarray(rows)
        return
    files = [folder / f"bucket-{i}" for i in range(count)]
    with contextlib.ExitStack() as stack:
        spools = [stack.enter_context(file.open("wb")) for file in files]
        for first in range(0, len(rows), _CHUNK):
            part = rows[first : first + _CHUNK]
            bucket = (mix(_keys(dataset, part, by)) % np.uint64(count)).astype(np.int64)
            by_bucket = np.argsort(bucket, kind="stable")
            ends = np.cumsum(np.bincount(bucket, minlength=count))
            for spool, some in zip(spools, np.split(part[by_bucket], ends[:-1]), strict=True):
                spool.write(some.data)
    for file in files:
        yield np.fromfile(file, np.int64)
        file.unlink()


def _group(dataset: Dataset, rows: Ints, by: By, liked: Ints) -> tuple[Ints, Ints, NDArray[np.int32], NDArray[np.bool_], Found]:
    """Rows [n] -> order, offsets, sizes, positive of their lists, and what was met with."""
    key, item = _keys(dataset, rows, by), dataset.item_row[rows].astype(np.int64)
    stage = np.zeros(len(rows), np.int8) if dataset.stage is None else dataset.stage[rows]
    feedback = dataset.labels[rows].sum(axis=1)
    if by == "request":
        _one_user_each(dataset, rows, key)
    order = np.lexsort((-feedback, item * STAGES + stage, key))  # stable: of equal rows the first
    again = (np.diff(key[order], prepend=-1) == 0) & (np.diff(item[order], prepend=-1) == 0)
    if len(order):
        again[0] = False
    known = (stage != Stage.IMPRESSION) & contains(liked, pairs(dataset, rows))
    kept = np.sort(order[~again & ~known[order]])
    kept = kept[np.lexsort((stage[kept], key[kept]))]
    starts = np.flatnonzero(np.diff(key[kept], prepend=key[kept[0]] - 1 if len(kept) else 0) != 0)
    offsets = np.append(starts, len(kept))
    of = np.repeat(np.arange(len(starts)), np.diff(offsets))
    sizes = np.bincount(of * STAGES + stage[kept], minlength=len(starts) * STAGES).reshape(-1, STAGES).astype(np.int32)
    good = (dataset.labels[rows[kept]] > 0).any(axis=1) & (stage[kept] == Stage.IMPRESSION)
    positive = np.bincount(of[good], minlength=len(starts)) > 0
    teacher = 0 if dataset.teacher is None else int(np.isnan(dataset.teacher[rows[kept]]).sum())
    found = Found(len(starts), len(kept), int(again.sum()), int((known[order] & ~again).sum()), int((sizes[:, 0] == 0).sum()),
                  int((~positive).sum()), int((sizes.sum(axis=1) == 1).sum()), teacher)  # fmt: skip
    return rows[kept], offsets, sizes, positive, found


def _one_user_each(dataset: Dataset, rows: Ints, key: Ints) -> None:
    """A request is one user's. Raises DataError."""
    user = dataset.user_row[rows]
    order = np.argsort(key, kind="stable")
    mixed = np.flatnonzero((np.diff(key[order]) == 0) & (np.diff(user[order]) != 0))
    if len(mixed):
        at = int(rows[order[mixed[0] + 1]])
        who = dataset.user_ids[int(dataset.user_row[at])]
        count = len(np.unique(key[order[mixed]]))
        raise DataError(f"request: a request must be one user's; {count} hold rows of several, the first one of user {who!r}")


def pairs(dataset: Dataset, rows: Ints) -> Ints:
    """One number for each row's (user, item).  # [n]"""
    return dataset.user_row[rows].astype(np.int64) * len(dataset.item_ids) + dataset.item_row[rows]


def liked_pairs(dataset: Dataset) -> Ints:
    """(user, item) of train impressions with a label > 0, ascending."""
    rows = dataset.rows("train")
    parts = (rows[first : first + _CHUNK] for first in range(0, len(rows), _CHUNK))
    liked = [np.unique(pairs(dataset, part[(dataset.labels[part] > 0).any(axis=1)])) for part in parts]
    return np.unique(np.concatenate([np.empty(0, np.int64), *liked]))


def contains(known: Ints, values: Ints) -> NDArray[np.bool_]:
    """Which values [n] are among ascending known ones."""
    if not len(known):
        return np.zeros(len(values), bool)
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return known[at] == values
