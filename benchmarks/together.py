"""Online training by several processes: rows a second, and a CPU second, of one process and of two that learn together.

    python -m benchmarks.together [--rows 200000] [--rounds 3]

Impressions of the simulated log, 1,000 a second of event time, lie in a log of two partitions; one process reads a log of one. Kinds take
turns, `rounds` times; the best of each is told, as other work on the machine only makes them slower. Batches are of 1,024 rows a process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import torch
from rich.console import Console

from benchmarks import record
from benchmarks.system import CS3, settings
from prerank.config import Config, dump, load
from prerank.data import prepare
from prerank.datasets import resolve
from prerank.online import Trainer
from prerank.stream import Impression, Row, Source, open_log
from prerank.training.together import Group

OUT = Path("results/together.json")
BEGIN, BATCH = 1_700_000_000_000, 1024


def configs(work: Path, options: argparse.Namespace) -> dict[str, Config]:
    """By kind."""
    made: dict[str, Any] = {"backbone": None, "cas + cts, memory in LMDB": {**CS3, "cms": None},
                            "cs3, ranking model beside, memory in LMDB": CS3}  # fmt: skip
    found = {}
    for kind, synergy in made.items():
        store: Any = None if synergy is None else {**synergy, "store": f"lmdb:{work / 'memory.lmdb'}"}
        found[kind] = settings(work, "run", options.users, options.items, options.seed, BATCH, synergy=store, start=None)
    return found


def fill(work: Path, config: Config, rows: int) -> None:
    """Logs of one and of two partitions, with the same rows."""
    data = resolve(config.data)
    assert data.log is not None
    context = [f.name for f in data.schema_().on("user") if f.side == "context"]
    log = pl.read_parquet(data.log).head(rows)
    made = []
    for n, line in enumerate(log.iter_rows(named=True)):
        shown = Impression(request=n, user=line["user_id"], item=line["item_id"], ts=BEGIN + n, features={c: line[c] for c in context})
        row = Row(impression=shown, labels={"click": float(line["click"])}, delay=2000, appended=BEGIN + n, source=Source(n, 0))
        made.append(msgspec.json.encode(row))
    for partitions in (1, 2):
        rows_db = open_log(f"sqlite:///{work / f'rows-{partitions}.db'}?partitions={partitions}")
        for p in range(partitions):
            rows_db.append(made[p::partitions], partition=p)
        rows_db.close()


def one(path: Path, to: Path) -> None:
    """One of the processes: what it took to learn all there is."""
    config = load(path)
    folder = Path(config.output)
    with Group.joined("cpu") as group:
        resolved = config.model_copy(update={"data": resolve(config.data)})
        trainer = Trainer(resolved, prepare(resolved.data), folder, together=group)
        group.wait()
        begun, cpu = time.monotonic(), time.process_time()
        told = trainer.run(lambda: False, until_empty=True)
        found = {"rows": told.rows, "seconds": time.monotonic() - begun, "cpu": time.process_time() - cpu, "batches": told.batches}
        (to / f"{group.rank}.json").write_text(json.dumps(found))


def measure(work: Path, config: Config, processes: int) -> dict[str, float]:
    """Of one run from its beginning."""
    for old in (work / "run", work / "said"):
        shutil.rmtree(old, ignore_errors=True)
    (work / "memory.lmdb").unlink(missing_ok=True)
    for folder in (work / "run", work / "said"):
        folder.mkdir()
    assert config.online is not None
    online = config.online.model_copy(update={"rows": f"sqlite:///{work / f'rows-{processes}.db'}"})
    (work / "one.yaml").write_text(dump(config.model_copy(update={"online": online})))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m",
               "benchmarks.together", "--one", str(work / "one.yaml"), "--work", str(work / "said")]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    said = [json.loads((work / "said" / f"{rank}.json").read_text()) for rank in range(processes)]
    rows, seconds, cpu = said[0]["rows"], max(s["seconds"] for s in said), sum(s["cpu"] for s in said)
    return {"rows": rows, "rows_per_second": round(rows / seconds), "rows_per_cpu_second": round(rows / cpu),
            "batches": said[0]["batches"]}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", type=Path, help="config of a process, which this starts itself")
    parser.add_argument("--work", type=Path, help="folder that stays; default: a temporary one")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.one:
        one(options.one, options.work)
        return
    work = options.work or Path(tempfile.mkdtemp(prefix="prerank-together-"))
    work.mkdir(exist_ok=True)
    kinds = configs(work, options)
    fill(work, kinds["backbone"], options.rows)
    found: dict[str, dict[str, Any]] = {kind: {} for kind in kinds}
    for _ in range(options.rounds):
        for kind, config in kinds.items():
            for processes in (1, 2):
                said, best = measure(work, config, processes), found[kind].get(str(processes))
                if best is None or said["rows_per_second"] > best["rows_per_second"]:
                    found[kind][str(processes)] = said
    Console().print(found, highlight=False)
    record.write(options.out, benchmark="together", seed=options.seed, results=found)
    if options.work is None:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
