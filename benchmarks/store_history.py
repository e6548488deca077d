"""What it costs that a store can be read as of a time, and that a row is blended once: in this process, in LMDB, and in Redis.

    python -m benchmarks.store_history [--ids 200000] [--width 64] [--batches 300]

A stream of batches of 1,024 ids, drawn as logs draw them (1 / rank), one every 5 s of event time; ticks of a minute, 15 of them kept. Three
ways: as a replay blends (plain), with offsets of rows (once), and with the past (history), which is then read as of 90 s and 10 min ago.
A redis-server is started beside, where there is one; its own CPU time is in the wall's and not in this process's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from rich.console import Console

from benchmarks import record
from benchmarks.store_size import timed
from prerank.store import History, LmdbFile, MemoryStore, RedisStore, Stamp, Store

BATCH, STEP = 1024, 5_000  # ids; milliseconds of event time from batch to batch
HISTORY = History(60_000, 900_000)
WAYS = ("plain", "once", "history")
AGO = {"read_90s_ago": 90_000, "read_10m_ago": 600_000}


def measure(store: Store, way: str, ids: int, batches: int, seed: int) -> dict[str, Any]:
    """Milliseconds of blending and reading a batch."""
    rng = np.random.default_rng(seed)
    drawn = [torch.from_numpy(np.minimum((ids ** rng.random(BATCH)).astype(np.int64), ids - 1)) for _ in range(64)]
    vectors, end = torch.randn(BATCH, store.width), (batches - 1) * STEP

    def blend(i: int) -> None:
        stamp = None if way == "plain" else Stamp("benchmark", torch.arange(i * BATCH, (i + 1) * BATCH), i * STEP)
        store.blend(drawn[i % 64], vectors, 0.8, torch.full((BATCH,), i * STEP), stamp)

    found = {"blend": timed(blend, batches), "read": timed(lambda i: store.get(drawn[i % 64]), batches)}
    if way == "history":
        found |= {name: timed(lambda i, at=end - ago: store.get(drawn[i % 64], at), batches) for name, ago in AGO.items()}  # type: ignore[misc]
    return found


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str | None]:
    """The address of a server; None where there is none to start."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        yield None
        return
    socket = folder / "s"
    command = [binary, "--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as process:
        try:
            while not socket.exists():
                assert process.poll() is None, "redis-server ended"
                time.sleep(0.01)
            yield f"unix://{socket}"
        finally:
            process.terminate()


def stores(folder: Path, url: str | None, way: str, ids: int, width: int) -> Iterator[tuple[str, Store]]:
    """Of each kind, empty."""
    history = HISTORY if way == "history" else None
    yield "memory", MemoryStore(ids, width, history)
    with contextlib.closing(LmdbFile(folder / f"{way}.lmdb", sync=False)) as file:
        yield "lmdb", file.store("benchmark", width, "benchmark", history)
    if url is not None:
        with contextlib.closing(RedisStore(url, way, width, "benchmark", history)) as remote:
            yield "redis", remote


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ids", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batches", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/store-history.json"))
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    torch.set_num_threads(1)
    console, rows = Console(width=140), []
    with tempfile.TemporaryDirectory(prefix="prerank-") as folder, redis(Path(folder)) as url:  # a socket's path must be short
        for way in WAYS:
            for kind, store in stores(Path(folder), url, way, options.ids, options.width):
                row = {"store": kind, "way": way, **measure(store, way, options.ids, options.batches, options.seed)}
                rows.append(row)
                console.print(f"{kind}, {way}: " + ", ".join(f"{k} {v['wall_ms']} ms" for k, v in row.items() if isinstance(v, dict)))
    record.write(options.out, benchmark="store_history", seed=options.seed, ids=options.ids, width=options.width, batch=BATCH, results=rows,
                 load=round(os.getloadavg()[0], 2))  # fmt: skip


if __name__ == "__main__":
    main()
