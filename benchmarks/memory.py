"""Training on data larger than memory: a Parquet folder five times a cap on memory is trained on under that cap.

    python -m benchmarks.memory [--cap-mb 700] [--times 5]

A folder of Parquet parts is written (ids, two numbers, a given vector of 256 numbers a row, a label), then `prerank train`
runs on it in a process of its own under the cap: a cgroup (version 2) where we may make one, else RLIMIT_DATA, which
counts all memory that is not a file's. Memory-mapped columns do not count there, as the system can drop them at any
time. The control reads the same folder at once under the same cap, and must fail: the cap is real.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from rich.console import Console

from benchmarks import record

DIM, USERS, ITEMS = 256, 20_000, 5_000
PART = 1 << 15  # rows that are in memory while the folder is written, and of a row group
GROUPS = 4  # row groups of a part
EVERY = 0.05  # seconds between looks at the process
CGROUPS = Path("/sys/fs/cgroup")
MB = 1 << 20
CONTROL = "import sys, polars; frame = polars.read_parquet(sys.argv[1]); print(len(frame))"


@dataclass(frozen=True)
class Measured:
    """A process under the cap. peak_anonymous: memory that is no file's; peak_total: with mapped files, which can be dropped."""

    status: int
    peak_anonymous_mb: float
    peak_total_mb: float
    wall_seconds: float
    cpu_seconds: float
    output: str


class Cap:
    """A limit on the memory of one child process."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._group = _cgroup(size)
        self.kind = "cgroup v2 memory.max" if self._group else "RLIMIT_DATA"

    def apply(self) -> None:
        """Called in the child before it becomes the program."""
        if self._group:
            (self._group / "cgroup.procs").write_text(str(os.getpid()))
        else:
            resource.setrlimit(resource.RLIMIT_DATA, (self.size, self.size))

    def close(self) -> None:
        if self._group:
            with contextlib.suppress(OSError):
                self._group.rmdir()


def _cgroup(size: int) -> Path | None:
    """A new group with this limit and no swap; None where that is not allowed."""
    group = CGROUPS / f"prerank-memory-{os.getpid()}"
    if not (CGROUPS / "cgroup.controllers").exists():
        return None
    try:
        group.mkdir()
        (group / "memory.max").write_text(str(size))
        with contextlib.suppress(OSError):
            (group / "memory.swap.max").write_text("0")
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        return None
    return group


@contextlib.contextmanager
def capped(size: int) -> Iterator[Cap]:
    cap = Cap(size)
    try:
        yield cap
    finally:
        cap.close()


def generate(folder: Path, size: int, seed: int) -> tuple[int, int]:
    """Parquet parts until the folder holds `size` bytes. Returns (bytes, rows); memory holds one row group."""
    rng = np.random.default_rng(seed)
    taste = rng.standard_normal(DIM, dtype=np.float32) / 8
    written = rows = part = 0
    while written < size:
        path = folder / f"part-{part:05d}.parquet"
        with contextlib.ExitStack() as stack:
            writer = None
            for _ in range(GROUPS):
                table = _rows(rng, taste, min(PART, max(1, (size - written) // (4 * DIM) + 1)))
                if writer is None:
                    writer = stack.enter_context(pq.ParquetWriter(path, table.schema, compression="none", use_dictionary=False))
                writer.write_table(table)
                rows += len(table)
                if written + path.stat().st_size >= size:
                    break
        written += path.stat().st_size
        part += 1
    return written, rows


def _rows(rng: np.random.Generator, taste: np.ndarray, n: int) -> pa.Table:
    vectors = rng.standard_normal((n, DIM), dtype=np.float32)
    clicked = rng.random(n) < 1 / (1 + np.exp(-(vectors @ taste)))
    offsets = np.arange(0, (n + 1) * DIM, DIM, dtype=np.int32)
    return pa.table(
        {
            "user_id": rng.integers(0, USERS, n), "item_id": rng.integers(0, ITEMS, n), "price": rng.lognormal(size=n),
            "age": rng.integers(0, 1000, n), "vector": pa.ListArray.from_arrays(pa.array(offsets), pa.array(vectors.ravel())),
            "click": clicked.astype(np.int8),
        }
    )  # fmt: skip


def settings(folder: Path, work: Path, seed: int) -> dict[str, Any]:
    """The YAML file of the run."""
    features = [
        {"name": "user_id", "side": "user"}, {"name": "item_id", "side": "item"},
        {"name": "price", "side": "item", "kind": "numeric", "bins": 20}, {"name": "age", "side": "context", "kind": "numeric"},
        {"name": "vector", "side": "context", "kind": "vector", "dim": DIM},
    ]  # fmt: skip
    data = {"log": str(folder), "labels": {"click": {"column": "click"}}, "features": features, "cache": str(work / "cache"),
            "split": {"kind": "random", "validation": 0.01, "test": 0.01}, "width": 16}  # fmt: skip
    training = {"epochs": 1, "batch_size": 8192, "eval_batch_size": 8192, "shuffle": "blocks", "threads": 1, "device": "cpu", "seed": seed}
    return {"data": data, "model": {"name": "dssm", "hidden": [64, 32], "width": 16}, "training": training, "output": str(work / "run")}


def run(command: Sequence[str], cap: Cap, folder: Path) -> Measured:
    """Run under the cap and watch; output goes to a file in `folder`, so that no pipe can fill up."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    anonymous = total = 0.0
    settled = dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    settled["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # its own reserves a gigabyte of addresses, which RLIMIT_DATA would count
    with tempfile.TemporaryFile("w+", dir=folder) as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, preexec_fn=cap.apply, env={**os.environ, **settled})
        while process.poll() is None:
            now = _memory(process.pid)
            anonymous, total = max(anonymous, now.get("RssAnon", 0.0)), max(total, now.get("VmHWM", 0.0))
            time.sleep(EVERY)
        out.seek(0)
        text = out.read().replace(str(folder), "FOLDER")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(process.returncode, round(anonymous, 1), round(total, 1), round(time.monotonic() - started, 1), round(cpu, 1), text)


def _memory(pid: int) -> dict[str, float]:
    """Megabytes of a process by /proc's names; empty once it has gone."""
    with contextlib.suppress(OSError):
        lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return {words[0].rstrip(":"): int(words[1]) / 1024 for words in lines if words[-1:] == ["kB"]}
    return {}


def measure(cap_bytes: int, times: float, seed: int, work: Path, console: Console) -> dict[str, Any]:
    """Generate, train under the cap, and let the control fail."""
    folder = work / "log"
    folder.mkdir()
    size, rows = generate(folder, int(times * cap_bytes), seed)
    parts = len(list(folder.iterdir()))
    console.print(f"folder: {rows:,} rows, {size / MB:,.0f} MB in {parts} parts; cap {cap_bytes / MB:,.0f} MB", highlight=False)
    config = work / "config.yaml"
    config.write_text(yaml.safe_dump(settings(folder, work, seed)))
    with capped(cap_bytes) as cap:
        trained = run([sys.executable, "-m", "prerank", "train", "--config", str(config), "--quiet"], cap, work)
        control = run([sys.executable, "-c", CONTROL, str(folder)], cap, work)
        kind = cap.kind
    return {
        "cap_mb": round(cap_bytes / MB), "cap": kind, "folder_mb": round(size / MB), "rows": rows,
        "rows_per_second": round(rows / trained.wall_seconds), "rows_per_cpu_second": round(rows / trained.cpu_seconds),
        "trained": asdict(trained), "control": {**asdict(control), "output": control.output[-300:]},
        "held": trained.status == 0, "real": control.status != 0,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cap-mb", type=int, default=700)
    parser.add_argument("--times", type=float, default=5.0, help="size of the folder in caps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the data is put for a while; default: the system's temporary folder")
    parser.add_argument("--out", type=Path, default=Path("results/memory.json"))
    options = parser.parse_args(arguments)
    console = Console()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="prerank-memory-") as work:
        need = int(2.5 * options.times * options.cap_mb * MB)  # the folder, its encoded columns, and some
        free = shutil.disk_usage(work).free
        if free < need:
            console.print(f"memory: needs {need / MB:,.0f} MB of disk in {work}, {free / MB:,.0f} are free", style="red", highlight=False)
            sys.exit(2)
        found = measure(options.cap_mb * MB, options.times, options.seed, Path(work), console)
    trained = found["trained"]
    console.print(
        f"trained under {found['cap']}: {'held' if found['held'] else 'BROKEN'}; peak {trained['peak_anonymous_mb']:,.0f} MB anonymous, "
        f"{trained['peak_total_mb']:,.0f} MB with mapped files, {trained['wall_seconds']:.0f} s, {trained['cpu_seconds']:.0f} CPU s, "
        f"{found['rows_per_second']:,} rows/s with preparation", highlight=False,
    )  # fmt: skip
    console.print(trained["output"].strip()[-500:], highlight=False, markup=False)
    control = "fails, the cap is real" if found["real"] else "SUCCEEDS: the cap is none"
    console.print(f"control (reads the folder at once): {control}", highlight=False)
    record.write(options.out, benchmark="memory", seed=options.seed, results=found)
    sys.exit(0 if found["held"] and found["real"] else 1)


if __name__ == "__main__":
    main()
