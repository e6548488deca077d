"""Events (shown, clicked, bought ...) -> one row a user and item, with a 0/1 column for every kind of event; in bounded memory.

In a log of events a click stands beside the impression that it answers: taken row by row, the same pair would be a negative and a positive.
So the pair is the row: what happened between the two, ever. Events are spooled to disk by a hash of the user, and each part of the users is
then handled in memory alone. `TMPDIR` says where; it must have room for all events.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from prerank.data.hashing import mix

PARTS = 64  # 3 x 10^8 events make parts of five million


def pairs(events: Iterable[pl.DataFrame], user: str, item: str, kind: str, time: str, kinds: Mapping[str, Any]) -> Iterator[pl.DataFrame]:
    """One row a (user, item): both ids, `time` of the first event, and an Int8 column a kind: 1 when there was such an event.

    events   frames with columns user and item (integers), kind, time; in any order
    kinds    {column: the value of `kind` that it tells of}

    All rows of a user are in one of the frames; users are in no particular order.
    """
    flags = [(pl.col(kind) == value).any().cast(pl.Int8).alias(name) for name, value in kinds.items()]
    for part in by_user(events, user):
        yield part.group_by(user, item, maintain_order=True).agg(pl.col(time).min(), *flags)


def by_user(rows: Iterable[pl.DataFrame], user: str, parts: int = PARTS) -> Iterator[pl.DataFrame]:
    """The same rows in at most `parts` other frames, all rows of a user in one of them, in the order in which they came."""
    with tempfile.TemporaryDirectory(prefix="prerank-") as folder:
        written = _spool(rows, user, parts, Path(folder))
        for path in written:
            yield pl.read_parquet(path)
            path.unlink()


def _spool(rows: Iterable[pl.DataFrame], user: str, parts: int, folder: Path) -> list[Path]:
    writers: dict[int, pq.ParquetWriter] = {}
    try:
        for frame in rows:
            code = pl.Series("part", mix(frame[user].cast(pl.Int64).to_numpy()) % parts)
            for (part,), own in frame.with_columns(code).partition_by("part", as_dict=True, include_key=False).items():
                table = own.to_arrow(compat_level=pl.CompatLevel.oldest())
                if part not in writers:
                    writers[part] = pq.ParquetWriter(folder / f"{part:03}.parquet", table.schema, compression="zstd")
                writers[part].write_table(table)
    finally:
        for writer in writers.values():
            writer.close()
    return [folder / f"{part:03}.parquet" for part in sorted(writers)]
