"""How fast training is: rows per CPU-second on one thread, ours against two baselines in the same run, with AUC after one epoch.

    PRERANK_DATA=... python -m benchmarks.training_speed [--batch-size 2048 8192] [--rounds 12]

MovieLens-1M (honest protocol), D = 32, 300-300-128, Adam 1e-3, one epoch. Every contender is a process of its own, and all
take turns: round 1 is the first twelfth of everyone's epoch, one after the other, and so on. So the epoch whose AUC is
quoted is the one that was timed, and a machine that is busy for a while is so for all. Ratios are medians over rounds of
(our rows per CPU-second / theirs) in the same round; the first round (allocations, first-time compilation) is left out.

    our DSSM, our IntTower H=2      bf16 and fp32 (fast matrix product); distinct users and items of a batch encoded once
    torch-rechub DSSM               0.9.0 in an environment of its own, its trainer and its data loader
    torch-rechub DSSM, ready        the same handed ready batches, as if loading were free: a stricter comparison
    plain IntTower H=2              PyTorch as one writes it: a row-wise data set, torch's DataLoader, fp32
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import record
from benchmarks.baselines.worker import ITEM, USER
from benchmarks.environment import UnavailableError, here, python_with
from prerank.config import ConfigError, parse
from prerank.data import Dataset, prepare
from prerank.datasets import resolve
from prerank.metrics import auc

ROOT = Path(__file__).resolve().parents[1]
RECHUB = "torch-rechub==0.9.0"
READY = ", ready"  # of the baseline whose loading is free
BAR, AIM = 3.0, {8192: 5.0}  # times the baseline; by batch size where we aim higher
AGAINST = {"dssm": ("rechub", "rechub ready"), "inttower": ("plain inttower",)}


@dataclass
class Contender:
    """A process that trains when it is told to; see `baselines.worker`."""

    name: str
    command: list[str]
    rounds: list[dict[str, Any]] = field(default_factory=list)

    def __enter__(self) -> Contender:
        one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        environment = {**os.environ, **one, "PYTHONPATH": str(ROOT)}
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            self.command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        self._answer()
        return self

    def train(self, batches: int) -> None:
        """The next batches of its epoch."""
        self.rounds.append(self.ask(f"train {batches}"))

    def ask(self, request: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(request + "\n")
        self._process.stdin.flush()
        return self._answer()

    def speeds(self) -> np.ndarray:
        """Rows per CPU-second of every round but the first."""
        timed = self.rounds[1:] or self.rounds
        return np.array([r["rows"] / r["cpu"] for r in timed])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"contender '{self.name}' ended: {self._errors.read()[-2000:]}")
        return dict(json.loads(line))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def write_split(dataset: Dataset, path: Path) -> None:
    """Encoded columns and labels of train and test, and vocabulary sizes, for baselines that cannot read ours."""
    columns: dict[str, np.ndarray] = {f"sizes/{n}": np.array(dataset.sizes[n]) for n in (*USER, *ITEM)}
    for split in ("train", "test"):
        rows = dataset.rows(split)
        found = dataset.columns("user", rows) | dataset.columns("item", rows)
        columns |= {f"{split}/{n}": found[n].numpy() for n in (*USER, *ITEM)}
        columns[f"{split}/label"] = dataset.labels[rows, 0]
    np.savez(path, **columns)  # type: ignore[arg-type]


def contenders(dataset: Dataset, split: Path, rechub: Path | None, batch_size: int, seed: int) -> dict[str, Contender]:
    """Everyone who takes part, in the order of their turns."""
    common = [str(split), "--batch-size", str(batch_size), "--seed", str(seed)]

    def of(python: Path, module: str, *more: str) -> list[str]:
        return [str(python), "-m", f"benchmarks.{module}", *common, *more]

    found = {}
    for model, title in (("dssm", "DSSM"), ("inttower", "IntTower H=2")):
        for precision in ("bf16", "fp32"):
            command = of(here(), "ours", "--model", model, "--precision", precision, "--dataset", str(dataset.path))
            found[f"{model} {precision}"] = Contender(f"our {title}, {precision}", command)
    if rechub is not None:
        found["rechub"] = Contender("torch-rechub DSSM", of(rechub, "baselines.rechub"))
        found["rechub ready"] = Contender(f"torch-rechub DSSM{READY}", of(rechub, "baselines.rechub", "--loader", "ready"))
    found["plain inttower"] = Contender("plain IntTower H=2", of(here(), "baselines.inttower"))
    return found


def measure(dataset: Dataset, rechub: Path | None, batch_size: int, rounds: int, seed: int) -> list[dict[str, Any]]:
    """One epoch of everyone, in turns."""
    batches = -(-len(dataset.rows("train")) // batch_size)
    chunk = -(-batches // rounds)
    labels = dataset.labels[dataset.rows("test"), 0]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        split = Path(folder) / "split.npz"
        write_split(dataset, split)
        found = contenders(dataset, split, rechub, batch_size, seed)
        for contender in found.values():
            stack.enter_context(contender)
        for turn in range(turns := -(-batches // chunk)):
            print(f"B={batch_size}: round {turn + 1} of {turns}", file=sys.stderr, flush=True)
            for contender in found.values():
                contender.train(chunk)
        aucs = {}
        for key, contender in found.items():
            assert sum(r["rows"] for r in contender.rounds) == len(dataset.rows("train")), f"{contender.name}: not one whole epoch"
            contender.ask(f"score {folder}/scores.npy")
            aucs[key] = float(auc(np.load(f"{folder}/scores.npy"), labels))
    return [_row(key, c, aucs, found, batch_size) for key, c in found.items()]


def _row(key: str, contender: Contender, aucs: dict[str, float], found: dict[str, Contender], batch_size: int) -> dict[str, Any]:
    speeds = contender.speeds()
    row: dict[str, Any] = {
        "contender": contender.name, "batch_size": batch_size, "rows_per_cpu_second": round(float(np.median(speeds))),
        "rows_per_wall_second": round(sum(r["rows"] for r in contender.rounds) / sum(r["wall"] for r in contender.rounds)),
        "cpu_seconds": round(sum(r["cpu"] for r in contender.rounds), 2), "auc": round(aucs[key], 4),
        "rounds": [round(float(s)) for s in speeds], "against": [],
    }  # fmt: skip
    model = key.split()[0]
    for other in AGAINST.get(model, ()) if contender.name.startswith("our") else ():
        if other in found:
            ratio = round(float(np.median(speeds / found[other].speeds())), 2)
            row["against"].append({"baseline": found[other].name, "ratio": ratio, "auc_difference": round(aucs[key] - aucs[other], 4)})
    return row


def show(found: Sequence[dict[str, Any]], console: Console) -> None:
    """The table, and a line for every bar."""
    table = Table(title="Training, one thread, MovieLens-1M, one epoch", title_justify="left")
    for column in ("contender", "B", "rows/CPU-s", "test AUC", "times the baseline"):
        table.add_column(column, justify="left" if column in ("contender", "times the baseline") else "right")
    for r in found:
        ratios = ", ".join(f"{a['ratio']:.2f} x {a['baseline']}" for a in r["against"])
        table.add_row(r["contender"], f"{r['batch_size']:,}", f"{r['rows_per_cpu_second']:,}", f"{r['auc']:.4f}", ratios)
    console.print(table)
    for r in found:
        for a in r["against"]:
            bar = AIM.get(r["batch_size"], BAR)
            met = a["ratio"] >= bar and a["auc_difference"] >= 0
            verdict = "stricter than the bar" if a["baseline"].endswith(READY) else f"bar {bar}x: {'met' if met else 'MISSED'}"
            measured = f"{a['ratio']:.2f}x, AUC {a['auc_difference']:+.4f}; {verdict}"
            console.print(f"B={r['batch_size']} {r['contender']} against {a['baseline']}: {measured}", highlight=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[2048, 8192])
    parser.add_argument("--rounds", type=int, default=12, help="turns in which the epoch is trained")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without-rechub", action="store_true", help="leave torch-rechub out (nothing is installed)")
    parser.add_argument("--out", type=Path, default=Path("results/training_speed.json"))
    options = parser.parse_args(arguments)
    console = Console()
    try:
        dataset = prepare(resolve(parse({"data": {"recipe": "movielens"}}).data))
    except ConfigError as error:
        console.print(f"training_speed: {error}", style="red", highlight=False)
        sys.exit(2)
    rechub, note = None, "left out"
    if not options.without_rechub:
        try:
            rechub, note = python_with(RECHUB, name="rechub-0.9.0"), RECHUB
        except UnavailableError as error:
            note = str(error)
    console.print(f"{dataset!r}; baseline: {note}", highlight=False)
    found = []
    for batch_size in options.batch_size:
        found += measure(dataset, rechub, batch_size, options.rounds, options.seed)
    show(found, console)
    record.write(options.out, benchmark="training_speed", seed=options.seed, rounds=options.rounds, rechub=note, results=found)


if __name__ == "__main__":
    main()
