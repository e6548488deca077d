"""What a replay finds where there is nothing to find: labels dealt anew, over the whole log or inside each user.

    PRERANK_DATA=... python -m benchmarks.replay_controls configs/kuairand/replay-strong.yaml --columns long_view is_click

    log     a row's label is anybody's: AUC must be .50
    user    a row's label is another of its user's: which of a user's rows is positive is drawn by lot. Nothing can tell, so that a
            fair GAUC is .50; where it is not, the measure itself leans
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import polars as pl
from rich.console import Console

from benchmarks import record
from prerank.config import Config, load
from prerank.datasets import resolve
from prerank.replay import replay

DEALT = ("log", "user")


def dealt(log: pl.DataFrame, columns: Sequence[str], over: str, user: str, seed: int) -> pl.DataFrame:
    """The log with the rows' labels dealt anew, columns together, among all rows or among each user's."""
    random, rows = np.random.default_rng(seed), np.arange(len(log))
    groups = log[user].rank("dense").to_numpy() if over == "user" else np.zeros(len(log))
    lot = random.random(len(log))
    to, source = np.lexsort((rows, groups)), np.lexsort((lot, groups))  # the same rows of each group, in order and drawn
    order = np.empty(len(log), np.int64)
    order[to] = source
    return log.with_columns(log[c].gather(order) for c in columns)


def control(config: Config, columns: Sequence[str], over: str, folder: Path) -> dict[str, Any]:
    """Metrics of the test rows in both protocols."""
    data = resolve(config.data)
    log = pl.read_parquet(data.log)
    path = folder / f"{over}.parquet"
    dealt(log, columns, over, data.user_id, config.training.seed).write_parquet(path)
    data = data.model_copy(update={"log": str(path), "cache": str(folder / "cache"), "recipe": None})
    replayed = replay(config.model_copy(update={"data": data, "output": str(folder / over)}))
    return {protocol: {label: {m: round(v, 4) for m, v in found.items()} for label, found in of.items()}
            for protocol, of in replayed.metrics.items() if protocol != "before"}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--columns", nargs="+", required=True, help="columns of the log that labels are made of")
    parser.add_argument("--out", type=Path, help="default: results/replay-controls-NAME.json")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    config, console, found = load(options.config), Console(width=140), {}
    with tempfile.TemporaryDirectory(prefix="prerank-controls-") as folder:
        for over in DEALT:
            found[over] = control(config, options.columns, over, Path(folder))
            for protocol, labels in found[over].items():
                for label, m in labels.items():
                    console.print(f"dealt over {over}: {protocol:11s} {label}: AUC {m['auc']:.4f}, GAUC {m['gauc']:.4f}", highlight=False)
    out = options.out or Path(f"results/replay-controls-{config.data.recipe or 'log'}.json")
    record.write(out, benchmark="replay_controls", seed=config.training.seed, results=found)


if __name__ == "__main__":
    main()
