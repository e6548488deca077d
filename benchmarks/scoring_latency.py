"""How long one user against k candidates takes, in process and on one thread, out of a catalogue of a million items.

    python -m benchmarks.scoring_latency [--items 1000000] [--repeats 400]

A request names a user by id and k item ids; the answer is the best 100 with their probabilities. The towers have the
shapes of the papers (D = 32, 5 user fields, 300-300-128, K = 64) with random weights, the item rows are random numbers in a
memory-mapped file: neither changes the time. Every call gets other candidates, so that no call finds its rows in the cache: out of a
million items most of a call is then the memory's own latency, which is why a catalogue of 100,000 is measured beside it.

    ours            Scorer.score: id lookups, user columns, user tower, gather + MaxSim in C, calibrated top 100
    torch eager     the same tower unfolded, candidates found by our lookup, index_select, matmul, amax, sum, torch.topk
    numpy           the same, gathered and compared by numpy, argsort
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import polars as pl
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from prerank import build
from prerank.batch import Group, PreRanker, Representation
from prerank.config import Model
from prerank.data.encoder import Categorical
from prerank.data.vocabulary import Vocabulary
from prerank.index import DType, Ids, ItemMatrix, top_k
from prerank.index.extension import maxsim
from prerank.index.rows import DTYPES, pack, padded
from prerank.schema import FIRST, Schema
from prerank.serving import Platt, Request, Scorer
from prerank.serving.folding import folded
from prerank.serving.generation import Generation, Meta
from prerank.serving.users import User, Users, encode

HIDDEN = [300, 300, 128]
MODELS: dict[str, dict[str, Any]] = {
    "inttower": {"name": "inttower", "hidden": HIDDEN, "heads": 2, "head_width": 64},
    "dssm": {"name": "dssm", "hidden": HIDDEN, "width": 64},
}
USERS = {"user": 6040, "gender": 2, "age": 7, "occupation": 21, "zip": 3439}
CANDIDATES = (100, 1000, 5000, 10000)
BEST = 100
ROUNDS = 8
FEW = 100_000  # items of the smaller catalogue
SETS = 64  # candidate sets that the calls go through
BARS = {("inttower", 1000): 0.20, ("inttower", 10000): 2.0}  # milliseconds, p50, fp32
DTYPES_MEASURED: tuple[DType, ...] = ("fp32", "bf16", "int8")


@dataclass
class Opened:
    """What a Scorer reads of a generation, without a folder: encoding a million items would measure something else."""

    meta: Meta
    schema: Schema
    weights: dict[str, torch.Tensor]
    items: ItemMatrix
    item_ids: Ids
    user_ids: Ids
    users: dict[str, np.ndarray]
    encoders: dict[str, Categorical]
    calibrators: dict[str, Platt]
    user_vectors: None = None
    folder: Path = Path("-")


def schema() -> Schema:
    features = [{"name": name, "side": "user"} for name in USERS] + [{"name": name, "side": "item"} for name in ("item", "genre")]
    return Schema.model_validate({"features": features, "user_id": "user", "item_id": "item", "width": 32})


def mapped(flat: np.ndarray, dtype: DType, folder: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Packed rows in a file that is memory-mapped, as a generation's are, and their scales."""
    path = folder / f"{dtype}.npy"
    rows = np.lib.format.open_memmap(path, "w+", DTYPES[dtype], (len(flat), padded(flat.shape[1], dtype)))
    scales = np.zeros(len(flat), np.float32) if dtype == "int8" else None
    for start in range(0, len(flat), 100_000):
        part = slice(start, start + 100_000)
        rows[part], scale = pack(flat[part], dtype)
        if scales is not None and scale is not None:
            scales[part] = scale
    rows.flush()
    return np.load(path, mmap_mode="r"), scales


def opened(name: str, flat: np.ndarray, dtype: DType, ids: Ids, folder: Path) -> tuple[Opened, nn.Module]:
    """A generation-like object of random rows, and the trained-like model (unfolded) for the baselines."""
    made = schema()
    rng = np.random.default_rng(0)
    encoders = {u: Categorical(u, Vocabulary(pl.Series(np.arange(n)))) for u, n in USERS.items()}
    sizes = {u: FIRST + n for u, n in USERS.items()} | {"item": 100, "genre": 20}
    torch.manual_seed(0)
    model = build.model(Model.model_validate(MODELS[name]), made, sizes).eval().requires_grad_(False)
    groups = [(g.user_heads, g.item_heads, g.width, g.objective) for g in model.head.groups]
    rows, scales = mapped(flat, dtype, folder)
    users = {u: np.arange(n, dtype=np.int32)[rng.integers(0, n, USERS["user"])] + FIRST for u, n in USERS.items()}
    meta = Meta(number=1, created=0.0, name=name, model=MODELS[name], schema=made.model_dump(mode="json"), fingerprint=made.fingerprint(),
                sizes=sizes, groups=groups, objectives=["label"], dtype=dtype, items=len(flat), users=USERS["user"], calibrators={},
                torch=str(torch.__version__), files={})  # fmt: skip
    items = ItemMatrix(rows, np.zeros((len(flat), 1), np.float32), groups, dtype=dtype, scales=scales)
    generation = Opened(
        meta, made, model.state_dict(), items, ids, Ids(np.arange(USERS["user"])), users, encoders, {"label": Platt(1.0, 0.0)}
    )
    return generation, model


def _encoded(model: nn.Module, columns: dict[str, torch.Tensor]) -> tuple[Representation, tuple[Group, ...]]:
    preranker = cast(PreRanker, model)
    return preranker.encode("user", columns), preranker.head.groups


def torch_eager(model: nn.Module, ids: Ids, columns: dict[str, torch.Tensor], rows: torch.Tensor, candidates: np.ndarray) -> np.ndarray:
    """What one writes with torch: tower, index_select, product, max, sum, topk. Returns logits [C]."""
    with torch.inference_mode():
        user, (group,) = _encoded(model, columns)
        found = torch.from_numpy(ids.rows(candidates))
        items = rows.index_select(0, found)[:, : group.item_heads * group.width].view(len(found), group.item_heads, group.width)
        logits = (items @ user.groups[0][0].T).amax(1).sum(1)
        if user.bias is not None:
            logits = logits + user.bias[0, 0]
        torch.topk(torch.sigmoid(logits), min(BEST, len(logits)))
    return logits.numpy()


def with_numpy(model: nn.Module, ids: Ids, columns: dict[str, torch.Tensor], rows: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """What one writes with numpy after the tower. Returns logits [C]."""
    with torch.inference_mode():
        user, (group,) = _encoded(model, columns)
    items = rows[ids.rows(candidates)][:, : group.item_heads * group.width].reshape(-1, group.item_heads, group.width)
    logits = np.matmul(items, user.groups[0][0].numpy().T).max(1).sum(1)
    if user.bias is not None:
        logits = logits + user.bias[0, 0].numpy()
    np.argsort(-1 / (1 + np.exp(-logits)))[:BEST]
    return logits


def clock(calls: dict[str, Callable[[int], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Microseconds of every path: p50 and p99 of the wall clock, p50 of the thread's CPU clock, and p50 of the quietest round.

    The paths take turns in rounds, so that a busy moment falls on all of them. On a machine that others share, the quietest round says
    what the code takes, the whole what it took.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    each = -(-repeats // ROUNDS)
    for _ in range(ROUNDS):
        for name, call in calls.items():
            for i in range(3):
                call(i)
            for i in range(each):
                wall, cpu = time.perf_counter(), time.thread_time()
                call(i)
                times[name].append((time.perf_counter() - wall, time.thread_time() - cpu))
    timings = {}
    for name, measured in times.items():
        wall_us, cpu_us = np.array(measured).T * 1e6
        p50, p99 = np.percentile(wall_us, [50, 99])
        quiet = np.median(wall_us.reshape(ROUNDS, each), axis=1).min()
        timings[name] = {"p50_us": round(float(p50), 1), "p99_us": round(float(p99), 1), "quiet_p50_us": round(float(quiet), 1),
                         "cpu_p50_us": round(float(np.median(cpu_us)), 1)}  # fmt: skip
    return timings


def paths(scorer: Scorer, model: nn.Module, rows: torch.Tensor | None, k: int, rng: np.random.Generator) -> dict[str, Callable[[int], Any]]:
    """What is timed, by name: ours, its parts, and with `rows` (fp32) the baselines, which must give the same logits."""
    generation = scorer.generation
    ids, items = generation.item_ids, generation.items
    columns = [{u: np.array(c[i : i + 1]) for u, c in generation.users.items()} for i in range(SETS)]
    side = Users(cast(Generation, generation))
    side.learn(folded(model, lambda m: encode(m, side.sample()).flat()))
    asked = [User(c, unknown=False, missing=[]) for c in columns]
    users = [side.vectors([u]) for u in asked]
    sets = [np.asarray(ids.ids)[rng.integers(0, len(items), k)] for _ in range(SETS)]
    found = [ids.rows(s) for s in sets]
    packed = [Request(user=i, candidates=s.tobytes(), k=BEST) for i, s in enumerate(sets)]
    listed = [Request(user=i, candidates=s.tolist(), k=BEST) for i, s in enumerate(sets)]
    scores = [items.score(u[0], b[0], r)[:, 0] for (u, b), r in zip(users, found, strict=True)]
    calls: dict[str, Callable[[int], Any]] = {
        "ours": lambda i: scorer.score([packed[i % SETS]]),
        "ours, ids as a list": lambda i: scorer.score([listed[i % SETS]]),
        "id lookup": lambda i: ids.rows(sets[i % SETS]),
        "user tower": lambda i: side.vectors([asked[i % SETS]]),
        "gather + MaxSim": lambda i: items.score(users[i % SETS][0][0], users[i % SETS][1][0], found[i % SETS]),
        "top 100": lambda i: top_k(scores[i % SETS], BEST),
    }
    if rows is not None:
        tensors = [{u: torch.from_numpy(c) for u, c in row.items()} for row in columns]
        calls["torch eager"] = lambda i: torch_eager(model, ids, tensors[i % SETS], rows, sets[i % SETS])
        calls["numpy"] = lambda i: with_numpy(model, ids, tensors[i % SETS], items.rows, sets[i % SETS])
        for baseline in ("torch eager", "numpy"):
            np.testing.assert_allclose(calls[baseline](0), scores[0], rtol=1e-3, atol=1e-3)
    return calls


def measure(
    name: str, flat: np.ndarray, dtype: DType, ids: Ids, folder: Path, repeats: int, seed: int, *, whole: bool = True
) -> list[dict[str, Any]]:
    """All timings of one model and storage type; not `whole`: of our path alone, under a name that says the catalogue's size."""
    generation, model = opened(name, flat, dtype, ids, folder)
    scorer = Scorer(cast(Generation, generation), build.served)
    rng = np.random.default_rng(seed)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # torch warns that a read-only map could be written to
        rows = torch.from_numpy(np.asarray(generation.items.rows)) if dtype == "fp32" and whole else None
    found = []
    for k in CANDIDATES:
        calls = paths(scorer, model, rows, k, rng)
        if not whole:
            calls = {f"ours, {len(flat):,} items": calls["ours"]}
        found += [{"model": name, "dtype": dtype, "k": k, "path": path, **timing} for path, timing in clock(calls, repeats).items()]
    return found


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        cpu = next(
            (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), cpu
        )
    return {
        "cpu": cpu, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(), "torch": str(torch.__version__),
        "numpy": np.__version__, "extension": maxsim is not None,
    }  # fmt: skip


def report(found: list[dict[str, Any]], console: Console) -> None:
    """One table a model; milliseconds."""
    for name in MODELS:
        table = Table(title=f"{name}: p50 / p99 in ms, one thread; in brackets p50 of the CPU clock", title_justify="left")
        for column in ("path", "dtype", *(f"k = {k:,}" for k in CANDIDATES)):
            table.add_column(column, justify="left" if column in ("path", "dtype") else "right")
        rows = [r for r in found if r["model"] == name]
        for path, dtype in dict.fromkeys((r["path"], r["dtype"]) for r in rows):
            cells = [next(r for r in rows if (r["path"], r["dtype"], r["k"]) == (path, dtype, k)) for k in CANDIDATES]
            table.add_row(path, dtype, *(f"{c['p50_us'] / 1e3:.3f} / {c['p99_us'] / 1e3:.3f} ({c['cpu_p50_us'] / 1e3:.3f})" for c in cells))
        console.print(table)
    for (name, k), bar in BARS.items():
        for ours in found:
            if (ours["model"], ours["k"]) == (name, k) and ours["path"].startswith("ours") and "list" not in ours["path"]:
                p50 = ours["p50_us"] / 1e3
                verdict = f"p50 {p50:.3f} ms, bar {bar} ms: {'met' if p50 < bar else 'MISSED'}"
                quiet = ours["quiet_p50_us"] / 1e3
                console.print(f"{name} {ours['dtype']} k={k:,}, {ours['path']}: {verdict} (quietest round {quiet:.3f})", highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/scoring_latency.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(options.seed)
    ids = Ids(rng.permutation(10 * options.items)[: options.items].astype(np.int64))
    found = []
    for name, width in (("inttower", 128), ("dssm", 64)):
        flat = rng.random((options.items, width), dtype=np.float32) - np.float32(0.5)
        for dtype in DTYPES_MEASURED:
            with tempfile.TemporaryDirectory() as folder:
                found += measure(name, flat, dtype, ids, Path(folder), options.repeats, options.seed)
        few = min(FEW, options.items)
        with tempfile.TemporaryDirectory() as folder:
            some = Ids(np.asarray(ids.ids)[:few])
            found += measure(name, flat[:few], "fp32", some, Path(folder), options.repeats, options.seed, whole=False)
    report(found, Console(width=180))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "benchmark": "scoring_latency", "seed": options.seed,
        "command": " ".join(["python", "-m", "benchmarks.scoring_latency", *sys.argv[1:]]),
        "items": options.items, "repeats": options.repeats, "machine": machine(), "results": found,
    }  # fmt: skip
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
