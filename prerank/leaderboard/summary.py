"""Trainings -> what the JSON says of a board: every row with its seeds, its speed, and paired comparisons on the same test rows.

A comparison is of logits averaged over the seeds that both rows have: AUC of one minus AUC of the other, with a 99 % bootstrap
interval over users.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prerank.leaderboard import pooled
from prerank.leaderboard.board import Board, Entry
from prerank.leaderboard.pooled import RESAMPLES
from prerank.leaderboard.shared import Seeds, beside, difference, views
from prerank.leaderboard.state import State, kept
from prerank.metrics import resampled

UNAVAILABLE = "not run: data not available here"


@dataclass(frozen=True, slots=True)
class Trained:
    """A row's trainings: its folders and how they ended, seed by seed; `unavailable` when its data are not on this machine."""

    entry: Entry
    folders: Mapping[int, Path]
    states: Mapping[int, State]
    unavailable: bool = False

    @property
    def finished(self) -> list[int]:
        """Seeds that were measured."""
        return [seed for seed, state in self.states.items() if state.status == "finished"]


def row(trained: Trained, board: Board) -> dict[str, Any]:
    """One row of the JSON, without comparisons and latency."""
    measured = [trained.states[seed].measured for seed in trained.finished]
    found = named(trained, board)
    if not measured:
        return found
    labels = list(measured[0]["test"])
    found["test"] = {
        label: {k: [_plain(m["test"][label].get(k)) for m in measured] for k in ("auc", "logloss", "gauc")} for label in labels
    }
    found |= {k: measured[0][k] for k in ("parameters", "user_tower_parameters")}
    found |= {k: [m[k] for m in measured] for k in ("rows_per_second", "rows_per_cpu_second", "rows", "seconds", "epochs", "best_epoch")}
    return found | pooled.row(measured)


def named(trained: Trained, board: Board) -> dict[str, Any]:
    """A row without its figures: what the board and its config say of it, and how its trainings ended here."""
    entry = trained.entry
    return {
        "label": entry.label, "kind": entry.kind, "config": entry.row.config, "set": entry.row.set, "model": entry.config.model.name,
        "leaky": entry.config.leaky or board.leaky, "status": _status(trained), "why": _why(trained), "seeds": trained.finished,
    }  # fmt: skip


def compared(trained: Sequence[Trained], board: Board) -> dict[str, Any]:
    """{objective: {row: {baseline: .., best_other: ..}}} and, under "best two-tower", its comparison with every other row."""
    ready = [t for t in trained if t.finished]
    if len(ready) < 2:
        return {}
    first = ready[0].folders[ready[0].finished[0]]
    labels, users = kept(first, "labels"), kept(first, "users")
    same = [t for t in ready if _same_rows(t, labels)]
    of = {t.entry.label: t for t in same}
    seeds = {label: t.finished for label, t in of.items()}
    means = views(seeds).items()
    scores = {key: np.mean([kept(of[label].folders[s], "logits") for s in own], axis=0) for key, (label, own) in means}  # [n, T]
    objectives = list(ready[0].states[ready[0].finished[0]].measured["test"])
    return {name: _of_objective(t, [r.entry for r in same], seeds, scores, labels, users, board) for t, name in enumerate(objectives)}


def _of_objective(t: int, entries: Sequence[Entry], seeds: Seeds, scores: Mapping[str, np.ndarray], labels: np.ndarray, users: np.ndarray,
                  board: Board) -> dict[str, Any]:  # fmt: skip
    found = resampled({key: z[:, t] for key, z in scores.items()}, labels[:, t], groups=users, resamples=RESAMPLES)
    order = sorted(seeds, key=lambda label: -found.values[label])
    rows = {label: {"auc_of_mean": found.values[label], **beside(found, label, order, board.baseline, seeds)} for label in order}
    towers = [label for label in order if next(e for e in entries if e.label == label).kind == "two-tower"]
    if not towers:
        return {"rows": rows, "best_two_tower": None}
    differences = [difference(found, towers[0], other, seeds) for other in order if other != towers[0]]
    return {"rows": rows, "best_two_tower": {"row": towers[0], "against": [one for one in differences if one]}}


def _same_rows(trained: Trained, labels: np.ndarray) -> bool:
    """Rows can be compared in pairs only on the very same test rows; other splits are other boards."""
    own = kept(trained.folders[trained.finished[0]], "labels")
    return own.shape == labels.shape and bool((own == labels).all())


def _status(trained: Trained) -> str:
    if trained.unavailable and not trained.states:
        return UNAVAILABLE
    ended = {state.status for state in trained.states.values()}
    if ended == {"finished"} and len(trained.states) == len(trained.folders):
        return "finished"
    for status in ("diverged", "failed"):
        if status in ended:
            return status
    return "partial" if ended else "not run"


def _why(trained: Trained) -> list[str]:
    """One line a seed that did not finish."""
    return [f"seed {seed}: {state.why}" for seed, state in trained.states.items() if state.why]


def _plain(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of what is there."""
    there = [v for v in values if v is not None]
    return statistics.fmean(there) if there else None
