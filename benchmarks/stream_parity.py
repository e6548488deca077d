"""A log as a stream: does `prerank online` predict as well as `prerank replay`, one pass over the same rows?

    python -m benchmarks.stream_parity [--config configs/kuairand/replay-weak.yaml --config configs/ml1m/replay-weak.yaml]

Every row goes as label waiting would write it, in order of time, through a trainer in lockstep; scores are those before learning. Both get
the same config; a stream's batches do not end at the split, and nothing else differs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import torch
from rich.console import Console
from sklearn.metrics import roc_auc_score

from benchmarks import record
from prerank.config import Config, Online, load
from prerank.data import Dataset, prepare
from prerank.datasets import resolve
from prerank.online import Trainer
from prerank.replay import replay
from prerank.stream import Impression, Row, Source, open_log
from prerank.training.online import Order, in_time


def fill(address: str, dataset: Dataset, order: Order, log: str) -> None:
    """The log's rows, as they are read by a trainer."""
    context = [f.name for f in dataset.schema.features if f.side == "context"]
    raw = pl.read_parquet(log, columns=context) if context else None
    if raw is not None and raw.height != len(dataset.labels):
        raise ValueError(f"log '{log}': context can be read only where every row is kept; {raw.height:,}, {len(dataset.labels):,} kept")
    users, items = dataset.user_ids.to_list(), dataset.item_ids.to_list()
    values = {name: raw[name].to_list() for name in context} if raw is not None else {}
    target, encode = open_log(address), msgspec.json.encode
    for first in range(0, len(order.rows), 20_000):
        found = []
        for n, at in enumerate(order.rows[first : first + 20_000].tolist(), first):
            ts = int(order.ts[n])
            features: dict[str, Any] = {name: column[at] for name, column in values.items()}
            impression = Impression(request=n, user=users[dataset.user_row[at]], item=items[dataset.item_row[at]], ts=ts, features=features)
            labels = {name: float(dataset.labels[at, t]) for t, name in enumerate(dataset.schema.objectives)}
            found.append(encode(Row(impression=impression, labels=labels, delay=0, appended=ts, source=Source(n, 0))))
        target.append(found)
    target.close()


def compare(config: Config, work: Path) -> dict[str, Any]:
    """AUC on the test rows, before learning from each: of both, and how far their logits are apart."""
    replayed = replay(config.model_copy(update={"output": str(work / "replay")}), window=None)
    data = resolve(config.data)
    dataset = prepare(data)
    order = in_time(dataset)
    address = f"sqlite:///{work / 'rows.db'}"
    fill(address, dataset, order, data.log or "")
    plain = data.model_copy(update={"labels": {n: type(label)(column=n) for n, label in data.labels.items()}})
    online = Online(rows=address, checkpoint="24h", recall=None)
    given = config.model_copy(update={"data": plain, "online": online, "output": str(work / "online")})
    (work / "online").mkdir()
    trainer = Trainer(given, dataset, work / "online", lockstep=True)
    found_logits: list[Any] = []

    def keep(logits: Any, labels: Any) -> None:
        found_logits.append(logits)

    trainer.running.add = keep  # type: ignore[method-assign]
    begun = time.process_time()
    trainer.run(lambda: False, until_empty=True)
    spent = time.process_time() - begun
    found = np.concatenate(found_logits)[:, 0]
    first = np.asarray(replayed.prequential)[: len(found), 0]
    test = slice(order.test, len(found))
    clicked = np.asarray(replayed.labels)[: len(found), 0] > 0
    return {
        "rows": len(found), "test_rows": len(found) - order.test, "label": dataset.schema.objectives[0],
        "auc_replay": float(roc_auc_score(clicked[test], first[test])), "auc_online": float(roc_auc_score(clicked[test], found[test])),
        "mean_distance_of_logits": float(np.abs(found - first).mean()), "rows_per_cpu_second": round(len(found) / spent),
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", action="append", help="of `prerank replay`; default: KuaiRand's and ML-1M's")
    parser.add_argument("--out", type=Path, default=Path("results/stream-parity.json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found = {}
    for path in options.config or ["configs/kuairand/replay-weak.yaml", "configs/ml1m/replay-weak.yaml"]:
        with tempfile.TemporaryDirectory(prefix="prerank-parity-") as work:
            found[path] = compare(load(path), Path(work))
        Console().print(path, found[path], highlight=False)
    record.write(options.out, benchmark="stream_parity", seed=0, results=found)


if __name__ == "__main__":
    main()
