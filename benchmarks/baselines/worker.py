"""A contender in a process of its own, trained a few batches at a time, so that contenders can take turns.

    python -m benchmarks.baselines.MODULE split.npz --batch-size 2048 ...      then a line on stdin each:
    train 40     -> {"batches": 40, "rows": 81920, "cpu": seconds, "wall": seconds}     fewer at the end of the epoch
    score FILE   -> {"rows": n}                                                         test logits to FILE (.npy)

Only the time inside `train` counts: what a contender does before (reading, encoding) is free for all of them alike.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

Columns = dict[str, np.ndarray]
USER = ("user_id", "gender", "age", "occupation")
ITEM = ("movie_id", "genres")  # genres [n, 6], 0 pads


class Contender(Protocol):
    """One model in its first epoch."""

    def train(self, batches: int) -> tuple[int, int]:
        """Train up to so many of the epoch's next batches; says (batches, rows)."""
        ...

    def score(self) -> np.ndarray:
        """Scores of the test rows, in the split's order.  # [n]"""
        ...


def arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("split", type=Path, help="what training_speed wrote: columns of train and test, vocabulary sizes")
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def read(path: Path) -> tuple[Columns, Columns, dict[str, int]]:
    """Train columns, test columns (features and label) and {feature: rows of its vocabulary}."""
    with np.load(path) as file:
        found = dict(file)
    parts = {p: {k.removeprefix(f"{p}/"): v for k, v in found.items() if k.startswith(f"{p}/")} for p in ("train", "test", "sizes")}
    return parts["train"], parts["test"], {k: int(v) for k, v in parts["sizes"].items()}


def serve(make: Callable[[], Contender]) -> None:
    """Answer requests until stdin closes, one thread. Standard output is the protocol's: what contenders print goes to stderr."""
    answers, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(1)
    contender = make()

    def answer(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    answer({"ready": torch.__version__})
    for line in sys.stdin:
        verb, argument = line.split()
        if verb == "train":
            cpu, wall = time.process_time(), time.perf_counter()
            batches, rows = contender.train(int(argument))
            answer({"batches": batches, "rows": rows, "cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall})
        else:
            scores = contender.score()
            np.save(argument, scores)
            answer({"rows": len(scores)})
