"""What CS3 costs: training steps and requests of backbones with CAS, CTS and CMS beside the plain ones, in one run, on one thread.

    python -m benchmarks.synergy_cost [--rounds 24] [--steps 4] [--items 100000]

Towers have the shapes of the papers (D = 32, 5 user and 2 item fields, 300-300-128, K = 64), CS3 its default settings, and `rich`
those that worked for us: a memory of what was answered with 0, count and age of the cache as inputs. All variants take turns in rounds,
so that a busy moment falls on all; ratios are taken inside a round, and their median over rounds counts.

    training   train_step and observe on ready batches of distinct users and items (drawing batches would cost all alike); CPU
               seconds of the process. The ranking model is not here: its vectors are random, its training is counted apart
    serving    Scorer.score of one user and k candidates, the best 100 asked for, every call with other candidates out of a
               catalogue that all variants share; wall and CPU clock
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks import record
from benchmarks.scoring_latency import BEST, MODELS, SETS, USERS, Opened, mapped, opened, schema
from prerank import build
from prerank.batch import Batch, Output
from prerank.config import Model, Synergy, TermConfig, Training
from prerank.index import Ids, ItemMatrix
from prerank.schema import FIRST
from prerank.serving import Request, Scorer
from prerank.serving.generation import Generation
from prerank.towers import TwoTower
from prerank.training.device import configure
from prerank.training.optimizer import Optimizer
from prerank.training.step import train_step

RICH = {"inputs": "vector_count_age"}
VARIANTS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "cas": {"cas": {}},
    "cts": {"cts": {}},
    "cms": {"cms": {"ranker": "dcnv2"}},
    "all": {"cas": {}, "cts": {}, "cms": {"ranker": "dcnv2"}},
    "all, rich": {"cas": {}, "cts": {**RICH, "negatives": True}, "cms": {"ranker": "dcnv2", **RICH}},
}
SIZES = {u: FIRST + n for u, n in USERS.items()} | {"item": FIRST + 3700, "genre": FIRST + 18}
BARS = {"training": 2.0, "serving": 1.25}  # times the plain backbone, of 'all'
SHOWN = {"training": "ms of CPU a step", "serving": "ms a request"}
Run = Callable[[int], None]


def synergy(variant: str) -> Synergy | None:
    """Of a variant; None: the plain backbone."""
    settings = VARIANTS[variant]
    return None if settings is None else Synergy.model_validate(settings)


def made(backbone: str, variant: str, seed: int) -> TwoTower:
    """A model with fresh weights; what CAS starts with at zero is drawn, and memories are full, so that nothing is trivial."""
    torch.manual_seed(seed)
    model = build.model(Model.model_validate(MODELS[backbone]), schema(), SIZES, synergy(variant))
    assert isinstance(model, TwoTower)
    for name, p in model.named_parameters():
        if ".excite." in name:
            torch.nn.init.normal_(p, std=0.05)
    for name, b in model.named_buffers():
        if name.endswith("store.vectors"):
            b.normal_()
        elif name.endswith("store.counts"):
            b.fill_(1)
    return model


def batches(count: int, size: int, seed: int) -> list[Batch]:
    """Rows of users and items that come as often as in logs (1 / rank), distinct rows once."""
    rng, found = np.random.default_rng(seed), []
    for i in range(count):
        rows = {s: _often(rng, SIZES[s] - FIRST, size) for s in ("user", "item")}
        distinct = {s: np.unique(r, return_inverse=True) for s, r in rows.items()}
        columns = {s: {n: torch.from_numpy((distinct[s][0] * 7919 % (SIZES[n] - FIRST) + FIRST).astype(np.int32)) for n in names}
                   for s, names in (("user", tuple(USERS)), ("item", ("item", "genre")))}  # fmt: skip
        found.append(Batch(
            user=columns["user"], item=columns["item"], user_index=torch.from_numpy(distinct["user"][1]),
            item_index=torch.from_numpy(distinct["item"][1]).unsqueeze(1),
            labels=torch.from_numpy((rng.random((size, 1, 1)) < 0.3).astype(np.float32)), where=torch.ones(size, 1, dtype=torch.bool),
            ts=torch.full((size, 1), 60_000 * (i + 1)),
        ))  # fmt: skip
    return found


def _often(rng: np.random.Generator, n: int, size: int) -> np.ndarray:
    return np.minimum((n ** rng.random(size)).astype(np.int64), n - 1)


def trained(backbone: str, variant: str, data: Sequence[Batch], seed: int) -> Run:
    """Trains on the batches in turn."""
    model = made(backbone, variant, seed).train()
    objective = build.objective([TermConfig(loss="logloss")], schema())
    optimizer = Optimizer(model, Training().optimizer, {name: torch.ones(n) for name, n in SIZES.items()})
    hidden = None
    if model.needs_hidden:
        width = next(m.cache.width for m in model.memories if m.needs_hidden)  # type: ignore[attr-defined]
        hidden = torch.randn(*data[0].where.shape, width)

    def observe(batch: Batch, output: Output) -> None:
        model.observe(batch, output, hidden)

    def step(i: int) -> None:
        train_step(model, objective, optimizer, data[i % len(data)], observe=observe if model.memories else None)

    return step


def served(backbone: str, variant: str, generation: Opened, k: int, seed: int) -> Run:
    """Scores sets of candidates in turn. Raises RuntimeError where the tower was not recorded: torch itself would be measured."""
    settings = synergy(variant)
    generation.weights = made(backbone, variant, seed).eval().state_dict()
    generation.meta.sizes = SIZES
    generation.meta.synergy = None if settings is None else settings.model_dump(mode="json")
    scorer = Scorer(cast(Generation, generation), build.served)
    if scorer._users._tape is None:
        raise RuntimeError(f"{backbone} {variant}: its user tower was not recorded")
    rng = np.random.default_rng(seed)
    known = np.asarray(generation.item_ids.ids)
    asked = [Request(user=i, candidates=known[rng.integers(0, len(known), k)].tobytes(), k=BEST) for i in range(SETS)]
    return lambda i: cast(None, scorer.score([asked[i % SETS]]))


def clock(runs: dict[str, Run], rounds: int, each: int) -> dict[str, dict[str, np.ndarray]]:
    """Seconds of every call, wall and CPU.  # {variant: {clock: [rounds, each]}}"""
    times: dict[str, list[list[tuple[float, float]]]] = {name: [] for name in runs}
    for turn in range(rounds):
        for name, run in runs.items():
            run(turn * each)  # what the one before left in the caches is not this one's
            found = []
            for i in range(each):
                wall, cpu = time.perf_counter(), time.process_time()
                run(turn * each + i)
                found.append((time.perf_counter() - wall, time.process_time() - cpu))
            times[name].append(found)
    return {name: dict(zip(("wall", "cpu"), np.moveaxis(np.array(t), 2, 0), strict=True)) for name, t in times.items()}


def compared(times: dict[str, dict[str, np.ndarray]]) -> list[dict[str, Any]]:
    """A row a variant: medians, the quietest round's, and ratios to the plain backbone in the same round."""
    rows = []
    for name, of in times.items():
        row: dict[str, Any] = {"variant": name}
        for which, seconds in of.items():
            median, plain = (np.median(t[which], axis=1) for t in (of, times["plain"]))  # [rounds]
            ratios = median / plain
            row |= {f"{which}_ms": round(1e3 * float(np.median(seconds)), 4), f"{which}_ms_quietest": round(1e3 * float(median.min()), 4),
                    f"{which}_ratio": round(float(np.median(ratios)), 3),
                    f"{which}_ratio_quartiles": [round(float(q), 3) for q in np.percentile(ratios, (25, 75))],
                    f"{which}_ratio_quietest": round(float(median.min() / plain.min()), 3)}  # fmt: skip
        rows.append(row)
    return rows


def measure_training(sizes: Sequence[int], rounds: int, steps: int, seed: int) -> list[dict[str, Any]]:
    found = []
    for backbone in MODELS:
        for size in sizes:
            data = batches(16, size, seed)
            times = clock({v: trained(backbone, v, data, seed) for v in VARIANTS}, rounds, steps)
            found += [{"backbone": backbone, "batch_size": size, **row} for row in compared(times)]
    return found


def measure_serving(items: int, k: int, rounds: int, calls: int, seed: int) -> list[dict[str, Any]]:
    rng, found = np.random.default_rng(seed), []
    ids = Ids(rng.permutation(10 * items)[:items].astype(np.int64))
    for backbone, width in (("dssm", 64), ("inttower", 128)):
        with tempfile.TemporaryDirectory() as folder:
            flat = rng.random((items, width), dtype=np.float32) - np.float32(0.5)
            generation, _ = opened(backbone, flat, "fp32", ids, Path(folder))
            rows, _ = mapped(flat, "fp32", Path(folder))
            generation.items = ItemMatrix(rows, np.zeros((items, 1), np.float32), generation.meta.groups)
            times = clock({v: served(backbone, v, generation, k, seed) for v in VARIANTS}, rounds, calls)
        found += [{"backbone": backbone, "k": k, "items": items, **row} for row in compared(times)]
    return found


def show(part: str, rows: Sequence[dict[str, Any]], console: Console) -> None:
    """A table, and a line for every bar."""
    which, size = ("cpu", "batch_size") if part == "training" else ("wall", "k")
    table = Table(title=f"{part}, one thread: {SHOWN[part]}", title_justify="left")
    for column in ("backbone", size, "variant", "median", "quietest round", "times the plain one", "its quartiles", "quietest"):
        table.add_column(column, justify="left" if column in ("backbone", "variant") else "right")
    for r in rows:
        low, high = r[f"{which}_ratio_quartiles"]
        table.add_row(r["backbone"], f"{r[size]:,}", r["variant"], f"{r[f'{which}_ms']:.3f}", f"{r[f'{which}_ms_quietest']:.3f}",
                      f"{r[f'{which}_ratio']:.2f}", f"{low:.2f} .. {high:.2f}", f"{r[f'{which}_ratio_quietest']:.2f}")  # fmt: skip
    console.print(table)
    for r in (r for r in rows if r["variant"] == "all"):
        ratio, bar = r[f"{which}_ratio"], BARS[part]
        console.print(f"{part}, {r['backbone']}, {size} {r[size]:,}: {ratio:.2f} times the plain backbone, bar {bar}: "
                      f"{'met' if ratio <= bar else 'MISSED'}", highlight=False)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--steps", type=int, default=4, help="training steps of a variant in a round")
    parser.add_argument("--calls", type=int, default=40, help="requests of a variant in a round")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[256, 2048])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--k", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/synergy-cost.json"))
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    configure(Training(threads=1, device="cpu"))  # as training does: threads, and an allocator that keeps what it freed
    console = Console(width=140)
    found = {
        "training": measure_training(options.batch_size, options.rounds, options.steps, options.seed),
        "serving": measure_serving(options.items, options.k, options.rounds, options.calls, options.seed),
    }
    for part, rows in found.items():
        show(part, rows, console)
    record.write(options.out, benchmark="synergy_cost", seed=options.seed, results=found, bars=BARS, rounds=options.rounds,
                 load=round(os.getloadavg()[0], 2))  # fmt: skip


if __name__ == "__main__":
    main()
