"""Time and memory of every loss on [64, 512] lists, forward and backward.

    python -m benchmarks.list_losses [--lists 64] [--candidates 512] [--only softsort]

Each loss runs in a process of its own, so that what one left behind is not counted to another. Lists are as a cascade gives them: a
fifth impressions, a third of those clicked, scores for impressions, bids for all, and a tenth of the places padding. Time is the least
CPU time of `REPEATS` calls on one thread (the others waited for memory or neighbours), memory the rise of the process's peak over
what it held before.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import record
from prerank import build
from prerank.batch import Batch, Output, Stage
from prerank.config import TermConfig
from prerank.schema import Schema

REPEATS = 7
PLAIN = ("logloss", "weighted_logloss", "info_nce", "softmax", "listnet", "bpr", "ranknet", "approx_ndcg", "neuralsort", "softsort",
         "rankmax", "am_rankmax", "dftopk", "arf", "lcron", "copr")  # fmt: skip
LOSSES: dict[str, dict[str, Any]] = {
    **{name: {"loss": name} for name in PLAIN},
    **{f"distillation, {kind}": {"loss": "distillation", "kind": kind} for kind in ("softmax", "logloss", "weighted_logloss", "pairwise")},
    "lcron, then": {"loss": "lcron", "then": 0.5},
    "dftopk, top": {"loss": "dftopk", "top": 50},
}


def lists(b: int, c: int, seed: int) -> tuple[Batch, Output]:
    g = torch.Generator().manual_seed(seed)
    stage = torch.full((b, c), int(Stage.RANKING), dtype=torch.int8)
    stage[:, : c // 5] = int(Stage.IMPRESSION)
    shown = stage == Stage.IMPRESSION
    labels = ((torch.rand(b, c, generator=g) < 0.3) & shown).float()
    teacher = torch.rand(b, c, generator=g).masked_fill(~shown, torch.nan)
    where = torch.rand(b, c, generator=g) < 0.9
    batch = Batch(user={}, item={}, user_index=torch.zeros(b).long(), item_index=torch.zeros(b, c).long(), labels=labels.unsqueeze(2),
                  where=where, stage=stage, teacher=teacher, bid=torch.rand(b, c, generator=g) + 0.1)  # fmt: skip
    return batch, Output(torch.randn(b, c, 1, generator=g).requires_grad_())


def measure(name: str, b: int, c: int, seed: int) -> dict[str, float]:
    """This process's time and memory for one loss."""
    torch.set_num_threads(1)
    schema = Schema(features=(), user_id="user", item_id="item")
    objective = build.objective([TermConfig.model_validate(LOSSES[name])], schema)
    small = lists(2, 8, seed)
    objective(*small)[0].backward()  # what torch loads at the first call is not the loss's
    batch, output = lists(b, c, seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        objective(batch, output)[0].backward()
        times.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"cpu_ms": 1e3 * min(times), "ns_per_candidate": 1e9 * min(times) / (b * c), "memory_mb": (peak - before) / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lists", type=int, default=64)
    parser.add_argument("--candidates", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", help="name of a loss, may be repeated; the others keep what the file says")
    parser.add_argument("--out", type=Path, default=Path("results/list-losses.json"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.lists, args.candidates, args.seed)))
        return
    names = [n for n in LOSSES if args.only is None or n in args.only]
    found = json.loads(args.out.read_text())["results"] if args.only and args.out.exists() else {}
    for name in names:
        command = [sys.executable, "-m", "benchmarks.list_losses", "--one", name, "--lists", str(args.lists), "--candidates",
                   str(args.candidates), "--seed", str(args.seed)]  # fmt: skip
        found[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{name:28} {found[name]['cpu_ms']:8.1f} ms  {found[name]['memory_mb']:7.1f} MB", flush=True)
    record.write(args.out, benchmark="list_losses", seed=args.seed, lists=args.lists, candidates=args.candidates, results=found)


if __name__ == "__main__":
    main()
