"""A vocabulary that grows: how fast ids are looked up, admitted and let go, and whether memory stays within what the settings say.

    python -m benchmarks.growth [--ids 5000000] [--capacity 1000000]

A stream in which every id is new once, is met a few times and then never again: `ids` of them pass through tables of `capacity` rows, so
that rows expire, or are the least recently used, and are used again. Resident memory is measured from before the vocabulary to the end,
and must stay below the bytes that the vocabulary says it takes, plus what a batch needs on its way.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
from rich.console import Console

from benchmarks import record
from prerank.config import Growth
from prerank.data.growing import GrowingVocabulary

BATCH = 8192
WORKING = 64 << 20  # bytes that batches, and the look for the least recently used, may take beside the vocabulary
MB = 1 << 20


def stream(ids: int, capacity: int, text: bool, expire: str, seed: int) -> dict[str, Any]:
    """All ids once through a vocabulary of new and known ones in turn; what it took."""
    rng = np.random.default_rng(seed)
    values = rng.permutation(ids).astype(np.int64) * 7919 + 1_000_000_007
    window = min(ids, capacity // 4)  # how far back an id comes again
    process = psutil.Process()
    dtype = pl.String if text else pl.Int64
    _of(values[:BATCH], text)  # what the first column takes is not the vocabulary's
    before = process.memory_info().rss
    growth = Growth(capacity=capacity, admit_after=2, expire_after=expire, candidates=max(BATCH, capacity // 8))
    vocabulary = GrowingVocabulary(pl.Series([], dtype=dtype), growth)
    spent, peak, rows = {"new": 0.0, "known": 0.0}, before, {"new": 0, "known": 0}
    admitted = released = 0
    for n, start in enumerate(range(0, ids, BATCH)):
        fresh = values[start : start + BATCH]
        back = values[rng.integers(max(0, start - window), max(1, start), 4 * BATCH)]
        for kind, given in (("new", np.repeat(fresh, 2)), ("known", back)):
            column = _of(given, text)
            began = time.process_time()
            vocabulary.assign(column, n * 1_000)
            spent[kind] += time.process_time() - began
            rows[kind] += len(given)
        changes = vocabulary.changes()
        admitted, released = admitted + len(changes.admitted), released + len(changes.released)
        if n % 20 == 0:
            peak = max(peak, process.memory_info().rss)
    texts = sum(len(t) + 49 for t in vocabulary.values.to_list()) if text else 0
    bound = vocabulary.bytes + texts + WORKING
    taken = max(peak, process.memory_info().rss) - before
    return {
        "ids": ids, "capacity": capacity, "kind": "text" if text else "integers", "admitted": admitted, "released_for_good": released,
        "held": len(vocabulary.values), "new_ids_per_cpu_second": round(ids / spent["new"]),
        "known_rows_per_cpu_second": round(rows["known"] / spent["known"]),
        "bytes_per_row": round((vocabulary.bytes + texts) / capacity, 1), "bound_mb": round(bound / MB, 1),
        "rss_mb": round(taken / MB, 1), "within": bool(taken <= bound),
    }  # fmt: skip


def _of(values: np.ndarray, text: bool) -> pl.Series:
    column = pl.Series(values)
    return ("item-" + column.cast(pl.String)) if text else column


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ids", type=int, default=5_000_000)
    parser.add_argument("--capacity", type=int, default=1_000_000)
    parser.add_argument("--expire", default="2m", help="in event time; a batch of 8,192 new ids is a second")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/growth.json"))
    options = parser.parse_args(arguments)
    console, found = Console(), []
    for capacity, text, expire in ((options.capacity, False, options.expire), (options.capacity, False, "30d"),
                                   (options.capacity, True, options.expire), (options.ids + 3, False, "30d")):  # fmt: skip
        one = stream(options.ids, capacity, text, expire, options.seed)
        found.append({"expire_after": expire} | one)
        console.print(
            f"{one['ids']:,} {one['kind']} through {capacity:,} rows, expiry {expire}: {one['new_ids_per_cpu_second']:,} new ids/s, "
            f"{one['known_rows_per_cpu_second']:,} known rows/s of a CPU; memory {one['rss_mb']:,.0f} MB, bound {one['bound_mb']:,.0f} MB: "
            f"{'within' if one['within'] else 'BEYOND'}", highlight=False,
        )  # fmt: skip
    record.write(options.out, benchmark="growth", seed=options.seed, results=found)


if __name__ == "__main__":
    main()
