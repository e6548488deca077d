"""The model that learning online is measured against: trained from scratch on the whole log, the one of before and what the stream brought.

    afresh(config, folder, world, life.kept)      {"utility": .., "requests": .., "rows": .., "seconds": ..}
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from prerank import build
from prerank.config import Config, Split
from prerank.datasets import resolve
from prerank.online.life import chosen
from prerank.online.living import Asked, LivingWorld
from prerank.run import train
from prerank.serving import Scorer, export
from prerank.serving.generation import Generation
from prerank.stream import Correction, Position, Rows, open_log


def afresh(config: Config, folder: Path, world: LivingWorld, asked: Sequence[tuple[Asked, float]]) -> dict[str, Any]:
    """True click probability of what it would have shown for these requests. Raises what training and exporting raise.

    folder   is replaced
    """
    assert config.online is not None
    begun = time.monotonic()
    data = resolve(config.data)
    folder.mkdir(parents=True, exist_ok=True)
    before = pl.read_parquet(data.log or "")
    whole = pl.concat([before, rows(config.online.rows, before)], how="diagonal_relaxed")
    whole.write_parquet(folder / "log.parquet")
    data = data.model_copy(update={"log": str(folder / "log.parquet"), "split": Split(kind="random", validation=0.05, test=0.0)})
    run, _ = train(config.model_copy(update={"data": data, "online": None, "output": str(folder)}), overwrite=True)
    options = config.model.model_dump(mode="json")
    generation = export(run.dataset, run.model, folder=folder / "generations", options=options, name="afresh", keep=1)
    scorer = Scorer(Generation(generation), build.served)
    found = [float(world.truth(one, at)[0][chosen(scorer, one)].mean()) for one, at in asked]
    return {"utility": sum(found) / max(len(found), 1), "requests": len(found), "rows": len(whole),
            "seconds": round(time.monotonic() - begun, 1)}  # fmt: skip


def rows(log: str, before: pl.DataFrame) -> pl.DataFrame:
    """What the stream brought, in the columns of the log of before; those that it does not say are missing."""
    opened, found, position = open_log(log, create=False), list[dict[str, Any]](), Position()
    reader = Rows(opened, position=position)
    first = int(before["request_id"].to_numpy().max()) + 1
    while taken := reader.take(10_000):
        for row in taken:
            if not isinstance(row, Correction):
                i = row.impression
                found.append({"request_id": first + int(i.request), "user_id": i.user, "item_id": i.item, "time_ms": i.ts,
                              "position": i.position, **i.features, **{kind: int(v > 0) for kind, v in row.labels.items()}})  # fmt: skip
    opened.close()
    names = ("request_id", "user_id", "item_id", "time_ms", "position", "scene", "hour", "click")
    found = [{name: row.get(name) for name in names} for row in found]  # a user's features stand in the table of users
    schema = {name: before.schema[name] for name in names}
    return pl.DataFrame(found, schema=schema)
