"""Two rows are compared over the seeds that both have: a mean of five seeds' scores beats a mean of two, whatever the models are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from prerank.metrics import Resampled

LEVEL = 0.99
Seeds = Mapping[str, Sequence[int]]  # finished ones of each row


def views(seeds: Seeds) -> dict[str, tuple[str, tuple[int, ...]]]:
    """{key: (row, seeds)} of all means that pairs of rows need; a row's own name is the key of all its seeds.

    >>> views({"a": [0, 1], "b": [0]})
    {'a': ('a', (0, 1)), 'a, seeds 0': ('a', (0,)), 'b': ('b', (0,))}
    """
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for row in seeds:
        found[row] = row, tuple(seeds[row])
        for other in seeds:
            if common := _common(row, other, seeds):
                found[_key(row, other, seeds)] = row, common
    return found


def difference(found: Resampled, row: str, other: str, seeds: Seeds) -> dict[str, Any] | None:
    """A row's metric minus another's over the seeds of both, with its interval, as a record has it; None where they share none.

    found   of `views(seeds)`
    """
    if not _common(row, other, seeds):
        return None
    told = found.difference(_key(row, other, seeds), _key(other, row, seeds), LEVEL)
    return {"row": other, **{k: round(v, 6) for k, v in asdict(told).items()}}


def beside(found: Resampled, row: str, order: Sequence[str], baseline: str, seeds: Seeds) -> dict[str, Any]:
    """{"baseline": .., "best_other": ..}: a row against the baseline and against the best of the others, as far as they share a seed.

    order   all rows, best first
    """
    others = [other for other in order if other != row]
    against = {"baseline": [other for other in others if other == baseline], "best_other": others[:1]}
    return {way: told for way, of in against.items() for other in of if (told := difference(found, row, other, seeds))}


def _common(row: str, other: str, seeds: Seeds) -> tuple[int, ...]:
    return tuple(seed for seed in seeds[row] if seed in seeds[other])


def _key(row: str, other: str, seeds: Seeds) -> str:
    common = _common(row, other, seeds)
    return row if len(common) == len(seeds[row]) else f"{row}, seeds {', '.join(map(str, common))}"
