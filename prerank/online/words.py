"""What the processes of a trainer tell each other, so that all do the same: before a batch, and when it was predicted.

Alone, they are what one says to itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prerank.online.catalogue import Catalogue
from prerank.stream import Row
from prerank.training.together import Group


class Word(NamedTuple):
    """Before a batch.

    rows     that were found;  full   whether they are a whole batch;  waited   whether they have waited for long enough
    stop     somebody asked for an end;  save   it is time for a checkpoint
    broken   entries since the last word that are no rows;  lag   entries that wait
    known    what is known when they are learned (moments.py);  strangers   how many users and items the prepared data does not have
    """

    rows: int
    full: bool
    waited: bool
    stop: bool
    save: bool
    broken: int
    lag: int
    known: int
    strangers: int


class Agreed(NamedTuple):
    """The words of all: sums of what is counted, the latest of what is known, and whether somebody says so of the rest.

    whole   all have a whole batch
    """

    rows: int = 0
    full: bool = False
    waited: bool = False
    stop: bool = False
    save: bool = False
    broken: int = 0
    lag: int = 0
    known: int = 0
    strangers: int = 0
    whole: bool = False


def agree(group: Group, word: Word) -> Agreed:
    """Raises GroupError."""
    said = [Word(rows, bool(full), bool(waited), bool(stop), bool(save), *counts)
            for rows, full, waited, stop, save, *counts in group.numbers(*map(int, word))]  # fmt: skip
    return Agreed(
        rows=sum(w.rows for w in said), full=any(w.full for w in said), waited=any(w.waited for w in said), stop=any(w.stop for w in said),
        save=any(w.save for w in said), broken=sum(w.broken for w in said), lag=sum(w.lag for w in said), whole=all(w.full for w in said),
        known=max(w.known for w in said), strangers=sum(w.strangers for w in said),
    )  # fmt: skip


@dataclass
class Heard:
    """Of a batch, from the process that learns from it.

    logits, labels   [B, T]; B is 0 where there is no batch
    users, items     whose rows they are;  since   ms, when the first of them was ready;  latest   when the last was
    skipped, corrections, late   rows that were left out
    lines            for the terminal
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.float32]
    users: set[Any] = field(default_factory=set)
    items: set[Any] = field(default_factory=set)
    since: int = 0
    latest: int = 0
    skipped: int = 0
    corrections: int = 0
    late: int = 0
    lines: list[str] = field(default_factory=list)


class Met(NamedTuple):
    """Users and items in a process's rows that the prepared data does not have."""

    users: list[Any]
    items: list[Any]


def strangers(catalogue: Catalogue, rows: Sequence[Row]) -> Met:
    """Of these rows."""
    users, items = catalogue.of_users, catalogue.of_items
    return Met(users.strangers(r.impression.user for r in rows), items.strangers(r.impression.item for r in rows))


def meet(group: Group, catalogue: Catalogue, rows: Sequence[Row]) -> list[Met]:
    """Strangers of all: every process meets them in one order, so that what is listed, and who is forgotten, is the same everywhere.
    Raises GroupError."""
    found = group.share(strangers(catalogue, rows))
    use(catalogue, found)
    return found


def use(catalogue: Catalogue, met: Sequence[Met]) -> None:
    """They are the ones that were used last."""
    for one in met:
        catalogue.of_users.rows(one.users)
        catalogue.of_items.rows(one.items)
