"""The whole of a board: train what is not trained, measure what scoring costs, compare, write.

    record = leaderboard("configs/leaderboards/ml1m-honest.yaml", jobs=2)       # results/leaderboard-ml1m-honest.json and .md

The JSON is made anew from the run folders each time; latencies and comparisons, which take minutes, are kept while the trainings that
they are of stay the same, and so are rows whose trainings are on another machine (`carried.py`).
"""

from __future__ import annotations

import contextlib
import glob
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from prerank import build
from prerank.config import Config, ConfigError
from prerank.data import prepare
from prerank.datasets import recipe, resolve
from prerank.leaderboard import carried, latency, pool, pooled, summary, tables
from prerank.leaderboard.board import Board, Entry, load
from prerank.leaderboard.pool import Job
from prerank.leaderboard.show import Show
from prerank.leaderboard.state import State, known
from prerank.leaderboard.summary import Trained
from prerank.report.machine import machine, versions
from prerank.training.checkpoint import write_text

RUNS = Path("runs/leaderboard")


def leaderboard(path: str | Path, *, only: str = "", seeds: int | None = None, jobs: int = 1, out: Path | None = None,
                runs: Path = RUNS, train: bool = True, measure: bool = True, again: bool = False,
                console: Console | None = None) -> dict[str, Any]:  # fmt: skip
    """Train, measure, compare and write. Raises ConfigError; a row that fails is in the record, not raised.

    only      trains only rows whose label or config's path contains this; the record has all rows
    seeds     so many trainings a row, instead of the board's number
    jobs      trainings at a time
    out       the JSON; default results/leaderboard-NAME.json. The Markdown lies beside it
    runs      folder of the run folders
    train     false: nothing is trained, what there is is written
    measure   false: no latencies are measured, those of the same trainings are kept
    again     latencies are measured anew also when the trainings are the same
    """
    path, console = Path(path), console or Console(stderr=True)
    board, entries = load(path)
    chosen = [e for e in entries if _matches(e, only)]
    if not chosen:
        raise ConfigError(f"--only '{only}': no row's label or config contains it; rows: {', '.join(e.label for e in entries)}")
    numbers = range(board.first_seed, board.first_seed + (seeds or board.seeds))
    away = {e.label for e in entries if not _available(e)}
    check([e for e in chosen if e.label not in away])
    todo = unfinished([e for e in chosen if e.label not in away], numbers, runs) if train else []
    if todo:
        prepare_all(todo, console)
        taken = {t.entry.label: t.states[s].measured["seconds"] for t in _found(entries, numbers, runs, away) for s in t.finished}
        with Show(todo, jobs, taken, console) as show:
            pool.run(todo, jobs, show)
    out = out or Path("results") / f"leaderboard-{path.stem}.json"
    record = _record(board, path, _found(entries, numbers, runs, away), written(out), measure, again, console)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, json.dumps(record, indent=1) + "\n")
    write_text(out.with_suffix(".md"), tables.markdown(record))
    return record


def _record(board: Board, path: Path, trained: Sequence[Trained], before: dict[str, Any], measure: bool, again: bool,
            console: Console) -> dict[str, Any]:  # fmt: skip
    away = set(carried.labels(trained, before))
    rows = [carried.row(t, board, before) if t.entry.label in away else summary.row(t, board) for t in trained]
    ready = [t for t in trained if t.finished and t.entry.label not in away]
    names = {t.entry.label: [t.folders[s].name for s in t.finished] for t in ready} | {name: before["trainings"][name] for name in away}
    objectives = list(next((r["test"] for r in rows if r["seeds"]), _labels(trained[0].entry)))
    record: dict[str, Any] = {
        "leaderboard": path.stem, "title": board.title, "protocol": board.protocol, "leaky": board.leaky, "baseline": board.baseline,
        "command": shlex.join(["prerank", *sys.argv[1:]]), "machine": machine(), "versions": versions(),
        "objectives": objectives, "candidates": list(latency.SHOWN), "bars": [bar.model_dump() for bar in board.bars], "rows": rows,
        "trainings": {t.entry.label: names[t.entry.label] for t in trained if t.entry.label in names},
        "here": [t.entry.label for t in ready],
    }  # fmt: skip
    nothing_new = carried.same(record, before) == set(record["trainings"]) == set(before.get("trainings", ()))
    if nothing_new and before.get("baseline") == board.baseline and set(record["here"]) <= set(before.get("here", names)):
        record |= {name: before.get(name, {}) for name in ("compared", "compared_in_pool")}
    else:
        console.print(f"comparing {len(ready)} rows", highlight=False)
        record["compared"] = summary.compared(ready, board)
        folders = {t.entry.label: {seed: t.folders[seed] for seed in t.finished} for t in ready}
        record["compared_in_pool"] = pooled.compared(folders, [r for r in rows if r["label"] in folders], board.baseline)
        if away:
            carried.join(record, before)
    firsts = {t.entry.label: t.folders[t.finished[0]] for t in ready}
    elsewhere = {t.entry.label: t.entry.config for t in trained if t.entry.label in away and not t.unavailable}
    of = {label: found[0] for label, found in names.items()}
    record["latency"] = _latency(of, firsts, elsewhere, before, measure, again, console)
    for row in rows:
        row["latency"] = record["latency"].get("rows", {}).get(row["label"])
    return record


def _latency(of: dict[str, str], firsts: dict[str, Path], elsewhere: dict[str, Config], before: dict[str, Any], measure: bool, again: bool,
             console: Console) -> dict[str, Any]:  # fmt: skip
    """Those of the same trainings are kept; when a row lacks its own, all are measured, one after another: here, or with fresh weights."""
    kept = carried.latencies(of, before)
    if not measure or not (again or {**firsts, **elsewhere}.keys() - kept.keys()):
        return {**before.get("latency", {}), "of": of, "rows": kept} if kept else {"of": of}
    here = machine()
    times = latency.measure({**firsts, **elsewhere}, say=lambda line: console.print(line, highlight=False, soft_wrap=True))
    return {"of": of, "machine": here, "fresh": list(elsewhere), "rows": carried.latencies(of, before, here["cpu"]) | times}


def unfinished(entries: Sequence[Entry], numbers: Sequence[int], runs: Path) -> list[Job]:
    """What is not trained yet, first seeds first; equal settings once."""
    found: dict[str, Job] = {}
    for seed in numbers:
        for entry in entries:
            job = Job(entry.label, seed, entry.seeded(seed, runs))
            state = known(job.folder)
            if state is None or not state.final:
                found.setdefault(job.config.output, job)
    return list(found.values())


def _found(entries: Sequence[Entry], numbers: Sequence[int], runs: Path, away: set[str]) -> list[Trained]:
    """What is known of every row."""
    trained = []
    for entry in entries:
        folders = {seed: Path(entry.seeded(seed, runs).output) for seed in numbers}
        states: dict[int, State] = {seed: state for seed, folder in folders.items() if (state := known(folder)) is not None}
        trained.append(Trained(entry, folders, states, entry.label in away))
    return trained


def check(entries: Sequence[Entry]) -> None:
    """Every model and objective can be built: a typo in the last row should not be told after a night. Raises ConfigError."""
    problems = []
    for entry in entries:
        try:
            data = resolve(entry.config.data)
            schema = data.schema_()
            build.check_terms(entry.config, data, schema)
            build.check_model(entry.config.model, schema, entry.config.objective, entry.config.synergy)
        except ConfigError as error:
            problems += [f"row '{entry.label}': {line}" for line in str(error).splitlines()]
    if problems:
        raise ConfigError("\n".join(problems))


def prepare_all(todo: Sequence[Job], console: Console) -> None:
    """Each data set once, before processes would do it side by side. What cannot be prepared is told by its training."""
    for data in {job.config.data.model_dump_json(): job.config.data for job in todo}.values():
        console.print(f"preparing {data.recipe or data.log}", highlight=False)
        with contextlib.suppress(ValueError):
            prepare(resolve(data))


def _labels(entry: Entry) -> list[str]:
    """The labels of data that may not be here."""
    data = entry.config.data
    return list(data.labels or ({} if data.recipe is None else recipe(data.recipe).defaults(data.options).get("labels", {})))


def _available(entry: Entry) -> bool:
    """The row's data are on this machine."""
    data = entry.config.data
    if data.recipe is not None:
        return recipe(data.recipe).locate(data.options) is not None
    return data.log is None or bool(glob.glob(data.log))


def _matches(entry: Entry, only: str) -> bool:
    return only.lower() in entry.label.lower() or only in entry.row.config


def written(out: Path) -> dict[str, Any]:
    """The record that is there; empty without one."""
    try:
        found: dict[str, Any] = json.loads(out.read_text())
        return found
    except (FileNotFoundError, ValueError):
        return {}
