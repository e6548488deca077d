"""The whole of an ablation: replay what is not replayed, measure what scoring costs, compare, write.

    record = ablate("configs/ablations/cs3-kuairand.yaml", seeds=5)       # results/ablation-cs3-kuairand.json, .md and pictures

The JSON is made anew from the run folders each time; only latencies and comparisons, which take minutes, are kept while the runs that
they are of stay the same.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from prerank.ablation import summary, tables
from prerank.ablation.measure import NOISE
from prerank.ablation.plan import RANKER, Cell, Plan, load
from prerank.ablation.summary import Replays
from prerank.config import ConfigError
from prerank.leaderboard import latency, pool
from prerank.leaderboard.leaderboard import check, prepare_all, unfinished, written
from prerank.leaderboard.pool import Job
from prerank.leaderboard.show import Show
from prerank.leaderboard.state import known
from prerank.report.machine import machine, versions
from prerank.training.checkpoint import write_text

RUNS = Path("runs/ablation")
CANDIDATES = (1_000,)


def ablate(path: str | Path, *, only: str = "", seeds: int | None = None, jobs: int = 1, out: Path | None = None, runs: Path = RUNS,
           replay: bool = True, measure: bool = True, console: Console | None = None) -> dict[str, Any]:  # fmt: skip
    """Replay, measure, compare and write. Raises ConfigError; a run that fails is in the record, not raised.

    only      replays only cells whose backbone and variant, 'DSSM, cas', contain this; the record has all
    seeds     so many runs a variant, instead of the plan's number
    jobs      runs at a time
    out       the JSON; default results/ablation-NAME.json. The Markdown and the pictures lie beside it
    runs      folder of the run folders
    replay    false: nothing is run, what there is is written
    measure   false: no latencies are measured, those of the same runs are kept
    """
    path, console = Path(path), console or Console(stderr=True)
    plan, cells = load(path)
    entries = [c.entry for c in cells if only.lower() in c.entry.label.lower()]
    if not entries:
        raise ConfigError(f"--only '{only}': no cell contains it; cells: {'; '.join(c.entry.label for c in cells)}")
    numbers = range(plan.first_seed, plan.first_seed + (seeds or plan.seeds))
    check(entries)
    todo = [_once(job) for job in unfinished(entries, numbers, runs)] if replay else []
    if todo:
        prepare_all(todo, console)
        taken = {r.cell.entry.label: r.states[s].measured["seconds"] for r in _found(cells, numbers, runs) for s in r.finished}
        with Show(todo, jobs, taken, console) as show:
            pool.run(todo, jobs, show, (sys.executable, "-m", "prerank.ablation.worker"))
    out = out or Path("results") / f"ablation-{path.stem}.json"
    record = _record(plan, path, _found(cells, numbers, runs), len(numbers), written(out), measure, console)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, json.dumps(record, indent=1) + "\n")
    write_text(out.with_suffix(".md"), tables.markdown(record))
    for picture in tables.pictures(record, out.parent):
        console.print(f"drawn: {picture}", highlight=False)
    return record


def _record(plan: Plan, path: Path, found: Sequence[Replays], seeds: int, before: dict[str, Any], measure: bool,
            console: Console) -> dict[str, Any]:  # fmt: skip
    rows = [summary.row(runs) for runs in found]
    ready = [runs for runs in found if runs.finished]
    record: dict[str, Any] = {
        "ablation": path.stem, "title": plan.title, "protocol": plan.protocol, "noise": NOISE, "cold": plan.cold,
        "command": shlex.join(["prerank", "ablate", str(path), "--seeds", str(seeds)]), "machine": machine(), "versions": versions(),
        "objectives": list(next((row["prequential"] for row in rows if row["seeds"]), ())), "rows": rows,
        "runs": {r.cell.entry.label: [r.folders[s].name for s in r.finished] for r in ready},
    }  # fmt: skip
    record["compared"] = {}
    for backbone in dict.fromkeys(r.cell.backbone for r in ready):
        own = [r for r in ready if r.cell.backbone == backbone]
        same = before.get("cold") == plan.cold and _runs_of(before, own) == _runs_of(record, own)
        if not same:
            console.print(f"comparing {backbone}", highlight=False)
        record["compared"][backbone] = before["compared"][backbone] if same else summary.compared(own, plan.cold)
    towers = [r for r in ready if r.cell.variant != RANKER]
    firsts = {r.cell.entry.label: r.folders[r.finished[0]] for r in towers}
    of = {label: folder.name for label, folder in firsts.items()}
    record["latency"] = before["latency"] if before.get("latency", {}).get("of") == of else {"of": of}
    if measure and "machine" not in record["latency"]:
        told = latency.measure(firsts, CANDIDATES, say=lambda line: console.print(line, highlight=False, soft_wrap=True))
        record["latency"] = {"of": of, "machine": machine(), "rows": told}
    for row, runs in zip(rows, found, strict=True):
        row["latency"] = record["latency"].get("rows", {}).get(runs.cell.entry.label)
    return record


def _runs_of(record: dict[str, Any], runs: Sequence[Replays]) -> list[Any]:
    """Folders of a backbone's runs, as a record has them."""
    return [record.get("runs", {}).get(r.cell.entry.label) for r in runs]


def _found(cells: Sequence[Cell], numbers: Sequence[int], runs: Path) -> list[Replays]:
    """What is known of every cell."""
    found = []
    for cell in cells:
        folders = {seed: Path(cell.entry.seeded(seed, runs).output) for seed in numbers}
        found.append(Replays(cell, folders, {s: state for s, folder in folders.items() if (state := known(folder)) is not None}))
    return found


def _once(job: Job) -> Job:
    """A replay is one pass, whatever `training.epochs` says: the time left goes by it."""
    training = job.config.training.model_copy(update={"epochs": 1})
    job.config = job.config.model_copy(update={"training": training})
    return job
