"""Which candidates a list takes this time: so many of each stage, and random items that nobody logged.

Drawn for a whole batch at once, by numbers and never list by list; what is drawn is a function of the generator that is handed in.
A stage that gives fewer than it holds gives a random part of them; what exceeds `max_length` is taken from the earliest stages first.
Random items come from those that train rows hold, by (their train rows) ** popularity; neither the list's own items nor, with
`filter`, items that the user was shown in train.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prerank.batch import Stage
from prerank.config import ConfigError, Take, nearest
from prerank.config import Lists as Settings
from prerank.data.dataset import Dataset
from prerank.data.lists import STAGES, Ints, Lists, train_items

MADE = -1  # the row of an item that was drawn
ROUNDS = 4  # draws with laying back until a list that still lacks random items has them from what is left
SLOTS = 1 << 24  # (list, item) pairs looked at in one go: 64 MiB at most
_MANY = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True)
class Drawn:
    """Candidates of B lists, flat: list after list, inside a list by stage.

    of     [n] which list;   row   [n] log row, MADE for a drawn item;   item   [n] row of dataset.items;   stage   int8 [n]
    """

    of: Ints
    row: Ints
    item: Ints
    stage: NDArray[np.int8]


class Sampler:
    """Draws candidates; see the module's first lines.

    kept   the lists that have any candidate of the stages asked for  # [L']
    """

    def __init__(self, dataset: Dataset, lists: Lists, settings: Settings, where: str = "training.lists") -> None:
        """Raises ConfigError for a stage that no row has. where   the settings' name, for the message"""
        self.dataset, self.lists, self.settings = dataset, lists, settings
        held = lists.sizes.sum(axis=0, dtype=np.int64)
        names = [stage.name.lower() for stage in Stage]
        for name in settings.stages:
            if name not in ("impression", "random") and not held[names.index(name)]:
                has = {n for n, rows in zip(names, held, strict=True) if rows} | {"random"}
                raise ConfigError(f"{where}.stages: no row is of stage '{name}'{nearest(name, has)}")
        self.takes: dict[int, Take] = {names.index(name): take for name, take in settings.stages.items()}
        random = self.takes.get(Stage.RANDOM)
        self._items, self._cumulated = _drawable(dataset, random) if random else (np.empty(0, np.int64), np.empty(0))
        taken = self._taken(lists.sizes)
        asked = self._taken(lists.sizes, limit=_MANY)
        self.kept = np.flatnonzero(taken.sum(axis=1) > 0)
        self.truncated = int((asked.sum(axis=1) + self._random(lists.sizes) > settings.max_length).sum())
        self.longest = int(np.minimum(taken.sum(axis=1) + self._random(lists.sizes), settings.max_length).max(initial=0))
        self._slot = np.zeros(0, np.int32)
        self._known = train_items(dataset) if random and settings.filter else None

    def draw(self, lists: Ints, random: np.random.Generator) -> Drawn:
        """Candidates of some lists [B]."""
        rows, of = self.lists.rows(lists)
        item = self.dataset.item_row[rows].astype(np.int64)
        sizes = self.lists.sizes[lists]  # [B, stages]
        taken = self._taken(sizes)
        stage = np.tile(np.arange(STAGES, dtype=np.int8), len(lists)).repeat(sizes.reshape(-1))
        kept = np.arange(len(of)) if np.array_equal(taken, sizes) else _some(sizes.reshape(-1), taken.reshape(-1), random)
        drawn = Drawn(of[kept], rows[kept], item[kept], stage[kept])
        wanted = np.minimum(self._random(sizes) - taken[:, Stage.RANDOM], self.settings.max_length - taken.sum(axis=1))
        if wanted.max(initial=0) <= 0:
            return drawn
        return self._with_random(drawn, lists, np.maximum(wanted, 0), of * len(self.dataset.item_ids) + item, random)

    def _taken(self, sizes: NDArray[np.int32], limit: int | None = None) -> NDArray[np.int32]:
        """Rows of each stage that lists of these sizes take.  # [B, stages] -> [B, stages]"""
        left = np.full(len(sizes), self.settings.max_length if limit is None else limit, np.int64)
        taken = np.zeros_like(sizes)
        for stage, take in sorted(self.takes.items()):
            taken[:, stage] = np.minimum(np.minimum(sizes[:, stage], _quota(take, sizes)), left)
            left -= taken[:, stage]
        return taken

    def _random(self, sizes: NDArray[np.int32]) -> Ints:
        """Random items that lists of these sizes ask for.  # [B, stages] -> [B]"""
        take = self.takes.get(Stage.RANDOM)
        if take is None:
            return np.zeros(len(sizes), np.int64)
        return np.minimum(_quota(take, sizes), len(self._items))

    def _with_random(self, drawn: Drawn, lists: Ints, wanted: Ints, own: Ints, random: np.random.Generator) -> Drawn:
        """With random items behind each list's rows; own are the pairs (list of the batch, item) of all its rows."""
        items = len(self.dataset.item_ids)
        block = max(1, SLOTS // items)
        if len(self._slot) < min(block, len(lists)) * items:
            self._slot = np.zeros(min(block, len(lists)) * items, np.int32)
        never = [own]
        if self._known is not None:
            offsets, known = self._known
            user = self.dataset.user_row[self.lists.order[self.lists.offsets[lists]]]
            lengths = offsets[user + 1] - offsets[user]
            of, ends = np.repeat(np.arange(len(lists)), lengths), np.cumsum(lengths)
            never.append(of * items + known[np.arange(len(of)) + np.repeat(offsets[user] - ends + lengths, lengths)])
        pairs = np.concatenate(never)
        made = []
        for first in range(0, len(lists), block):
            inside = pairs if block >= len(lists) else pairs[(pairs >= first * items) & (pairs < (first + block) * items)]
            made.append(self._fill(wanted[first : first + block], inside - first * items, random) + first * items)
        found = np.concatenate(made)  # ascending by list
        of = np.concatenate([drawn.of, found // items])
        order = np.argsort(of, kind="stable")
        row = np.concatenate([drawn.row, np.full(len(found), MADE)])
        stage = np.concatenate([drawn.stage, np.full(len(found), Stage.RANDOM, np.int8)])
        return Drawn(of[order], row[order], np.concatenate([drawn.item, found % items])[order], stage[order])

    def _fill(self, wanted: Ints, never: Ints, random: np.random.Generator) -> Ints:
        """Pairs (list, item), ascending by list: as many a list as wanted [b], none of `never`, none twice."""
        items, slot = len(self.dataset.item_ids), self._slot
        slot[never] = -1
        touched, found, missing = [never], [np.empty(0, np.int64)], wanted.copy()
        for _ in range(0 if self.takes[Stage.RANDOM].all else ROUNDS):
            lengths = np.where(missing > 0, missing + missing // 4 + 4, 0)
            of = np.arange(len(wanted)).repeat(lengths)
            pair = of * items + self._items[np.searchsorted(self._cumulated, random.random(len(of)), side="right")]
            free = np.flatnonzero(slot[pair] >= 0)
            slot[pair[free]] = np.arange(1, len(free) + 1)
            free = free[slot[pair[free]] == np.arange(1, len(free) + 1)]  # of equal ones one is left
            new = _first_of(pair[free], of[free], missing)
            touched.append(pair)
            slot[pair[slot[pair] > 0]] = 0
            slot[new] = -1
            found.append(new)
            missing -= np.bincount(new // items, minlength=len(wanted))
            if not missing.any():
                break
        if missing.any():
            found.append(self._rest(missing, random))
        every = np.concatenate(found)
        for pairs in touched:
            slot[pairs] = 0
        return every[np.argsort(every // items, kind="stable")]

    def _rest(self, missing: Ints, random: np.random.Generator) -> Ints:
        """For lists that know nearly every item, and where all are wanted: from the items that are left, without laying any back.

        The first of log(u) / weight in falling order (Efraimidis & Spirakis 2006) are such a draw.
        """
        items, lists = len(self.dataset.item_ids), np.flatnonzero(missing)
        free = self._slot[: len(missing) * items].reshape(-1, items)[lists][:, self._items] >= 0
        row, at = free.nonzero()
        if (free.sum(axis=1) > missing[lists]).any():
            weights = np.diff(self._cumulated, prepend=0.0, append=1.0)[at]
            order = np.lexsort((-np.log(random.random(len(at))) / weights, row))
            row, at = row[order], at[order]
        return _first_of(lists[row] * items + self._items[at], lists[row], missing)

    def said(self) -> list[str]:
        """What a reader of the log should know of the lists: one sentence each."""
        f, lists = self.lists.found, len(self.kept)
        notes = [f"lists by {self.settings.by}: {lists:,} of up to {self.longest:,} candidates ({self.settings.pool()})"]
        counted = (
            (f.lists - lists, "lists have no candidate of these stages and are left out"),
            (self.truncated, f"lists are longer than {self.settings.max_length:,} and lose candidates of the earliest stages"),
            (f.duplicates, "rows repeat an item of their list; the one furthest in the cascade stays"),
            (f.liked, "candidates were liked by the user in train and are left out"),
            (f.without_impressions, "lists have no impression"),
            (f.without_positives, "lists have no positive"),
            (f.of_one, "lists have one logged candidate"),
            (f.without_teacher, f"of {f.rows:,} rows have no teacher's score and are masked"),
        )
        return notes + [f"{count:,} {what}" for count, what in counted if count]


def _quota(take: Take, sizes: NDArray[np.int32]) -> Ints:
    """[B, stages] -> how many a list may take  # [B]"""
    if take.ratio is not None:
        return np.ceil(take.ratio * sizes[:, Stage.IMPRESSION]).astype(np.int64)
    return np.full(len(sizes), _MANY if take.count is None else take.count, np.int64)


def _some(sizes: NDArray[np.integer[Any]], taken: NDArray[np.integer[Any]], random: np.random.Generator) -> Ints:
    """Positions of so many, at random, of each run of a flat array; ascending.  # runs' sizes [S], how many [S]"""
    run = np.repeat(np.arange(len(sizes)), sizes)
    cut = np.flatnonzero((taken < sizes)[run] & (taken > 0)[run])
    keep = np.repeat(taken == sizes, sizes)
    shuffled = cut[np.argsort(run[cut] + random.random(len(cut)))]  # inside each run
    own = run[shuffled]
    first = np.searchsorted(own, own)
    keep[shuffled[np.arange(len(own)) - first < taken[own]]] = True
    return np.flatnonzero(keep)


def _first_of(values: Ints, of: Ints, counts: Ints) -> Ints:
    """The first counts[b] values of each list; `of` [n] ascends."""
    first = np.searchsorted(of, of)
    return values[np.arange(len(of)) - first < counts[of]]


def _drawable(dataset: Dataset, take: Take) -> tuple[Ints, NDArray[np.float64]]:
    """Items that train rows hold, and the cumulated chance of each."""
    rows = dataset.rows("train", None)
    counts = np.zeros(len(dataset.item_ids), np.int64)
    for first in range(0, len(rows), 1 << 20):
        counts += np.bincount(dataset.item_row[rows[first : first + (1 << 20)]], minlength=len(counts))
    items = np.flatnonzero(counts)
    chances = np.cumsum(counts[items].astype(np.float64) ** take.popularity)
    return items, chances[:-1] / chances[-1]
