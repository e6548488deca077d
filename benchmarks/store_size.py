"""What ten million ids take in a memory of CTS or CMS, and how long reading and blending them is: in this process and in LMDB.

    python -m benchmarks.store_size [--ids 10000000] [--width 64] [--times 50]

`memory` holds a row for every id, seen or not: its size is that of its arrays, and what the process takes is measured beside. An LMDB
file grows with ids that were seen; all are written. Reads and blends are of batches of 8,192 ids, drawn as logs draw them (1 / rank).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from rich.console import Console

from benchmarks import record
from prerank.store import LmdbFile, Memory, MemoryStore, Store

BATCH, CHUNK = 8192, 100_000
PAPER = 10**8  # ids of the industrial system


def timed(call: Callable[[int], Any], times: int) -> dict[str, float]:
    """Milliseconds of a call: medians of the wall and of the CPU clock."""
    found = []
    for i in range(times):
        wall, cpu = time.perf_counter(), time.process_time()
        call(i)
        found.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall_ms, cpu_ms = 1e3 * np.median(np.array(found), axis=0)
    return {"wall_ms": round(float(wall_ms), 2), "cpu_ms": round(float(cpu_ms), 2)}


def fill(store: Store, ids: int, seed: int) -> float:
    """Put a vector for every id. Seconds."""
    random, start = torch.Generator().manual_seed(seed), time.perf_counter()
    for first in range(0, ids, CHUNK):
        some = torch.arange(first, min(first + CHUNK, ids))
        store.put(some, Memory(torch.randn(len(some), store.width, generator=random), torch.ones_like(some), torch.ones_like(some)))
    return time.perf_counter() - start


def used(store: Store, ids: int, times: int, seed: int) -> dict[str, Any]:
    """Reading and blending, and that what was blended is there."""
    rng = np.random.default_rng(seed)
    batches = [torch.from_numpy(np.minimum((ids ** rng.random(BATCH)).astype(np.int64), ids - 1)) for _ in range(8)]
    vectors, ts = torch.randn(BATCH, store.width), torch.full((BATCH,), 2)
    found = {"read": timed(lambda i: store.get(batches[i % 8]), times),
             "blend": timed(lambda i: store.blend(batches[i % 8], vectors, 0.8, ts), times)}  # fmt: skip
    assert bool((store.get(batches[0]).counts > 1).all()), "what was blended is not there"
    return found


def measure(ids: int, lmdb_ids: int, width: int, times: int, seed: int, folder: Path) -> list[dict[str, Any]]:
    """A row a store."""
    before = _resident()
    memory = MemoryStore(ids, width)
    seconds = fill(memory, ids, seed)
    arrays = sum(t.numel() * t.element_size() for t in memory.buffers())
    resident = (_resident() - before) / ids
    rows = [{"store": "memory", "ids": ids, "bytes_an_id": round(arrays / ids, 1), "resident_bytes_an_id": round(resident, 1),
             "fill_seconds": round(seconds, 1), **used(memory, ids, times, seed)}]  # fmt: skip
    del memory
    path = folder / "store.lmdb"
    with contextlib.closing(LmdbFile(path, sync=False)) as file:
        store = file.store("bench", width, "bench")
        seconds = fill(store, lmdb_ids, seed)
        size = path.stat().st_blocks * 512
        rows.append({"store": "lmdb", "ids": lmdb_ids, "bytes_an_id": round(size / lmdb_ids, 1), "fill_seconds": round(seconds, 1),
                     **used(store, lmdb_ids, max(3, times // 10), seed)})  # fmt: skip
    for row in rows:
        row |= {"width": width, **{f"gib_at_{n:,}": round(row["bytes_an_id"] * n / 2**30, 2) for n in (ids, PAPER)}}
    return rows


def _resident() -> int:
    """Bytes of this process in memory."""
    if sys.platform == "linux":
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ids", type=int, default=10_000_000)
    parser.add_argument("--lmdb-ids", type=int, help="default: as many")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--times", type=int, default=50, help="reads and blends")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the file is put for a while; default: the system's temporary folder")
    parser.add_argument("--out", type=Path, default=Path("results/store-size.json"))
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="prerank-store-") as folder:
        found = measure(options.ids, options.lmdb_ids or options.ids, options.width, options.times, options.seed, Path(folder))
    console = Console(width=140)
    for r in found:
        paper = r[f"gib_at_{PAPER:,}"]
        console.print(f"{r['store']}: {r['ids']:,} ids of {r['width']}: {r['bytes_an_id']:,.0f} bytes an id, {paper:,.1f} GiB at 10^8; "
                      f"{BATCH:,} rows read in {r['read']['wall_ms']} ms, blended in {r['blend']['wall_ms']}", highlight=False)  # fmt: skip
    record.write(options.out, benchmark="store_size", seed=options.seed, results=found, load=round(os.getloadavg()[0], 2))


if __name__ == "__main__":
    main()
