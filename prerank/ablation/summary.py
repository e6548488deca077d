"""Replays -> what the JSON says of a backbone: every variant with its seeds, and what it adds, paired, on the same test rows.

A comparison is of logits averaged over the seeds that both variants have: AUC of one minus AUC of the other, with a 99 % bootstrap
interval over users. An id is cold when it had at most so many events: before the row (prequential), or before the first test row
(frozen). Agreement with the ranking model is Kendall's tau_b of each user's test rows (or request's), averaged over those that have one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prerank.ablation.plan import CONTROL, PLAIN, PROTOCOLS, RANKER, Cell, Protocol
from prerank.leaderboard.pooled import RESAMPLES
from prerank.leaderboard.shared import Seeds, difference, views
from prerank.leaderboard.state import State, kept
from prerank.metrics import Agreement, Resampled, resampled, resampled_means

AGAINST = (PLAIN, CONTROL, RANKER)  # what a variant is compared with, where there is one
NUMBERS = ("seconds", "cpu_seconds")
HISTORIES = (10, 30, 100)  # events of a user: where slices by length of history end


@dataclass(frozen=True, slots=True)
class Replays:
    """A cell's runs: its folders and how they ended, seed by seed."""

    cell: Cell
    folders: Mapping[int, Path]
    states: Mapping[int, State]

    @property
    def finished(self) -> list[int]:
        """Seeds that were measured."""
        return [seed for seed, state in self.states.items() if state.status == "finished"]

    def mean(self, array: str, seeds: Sequence[int]) -> NDArray[np.float64]:
        """Of an array of the test rows, over seeds."""
        return np.asarray(np.mean([kept(self.folders[s], array) for s in seeds], axis=0, dtype=np.float64))


def row(runs: Replays) -> dict[str, Any]:
    """One row of the JSON, without comparisons."""
    cell, seeds = runs.cell, runs.finished
    measured = [runs.states[seed].measured for seed in seeds]
    found: dict[str, Any] = {
        "backbone": cell.backbone, "variant": cell.variant, "config": cell.entry.row.config, "set": cell.entry.row.set,
        "model": cell.entry.config.model.name, "seeds": seeds,
        "why": [f"seed {seed}: {state.status}: {state.why}" for seed, state in runs.states.items() if state.why],
    }  # fmt: skip
    if not measured:
        return found
    labels = list(measured[0]["test"])
    for protocol, key in (("prequential", "test"), ("frozen", "frozen"), ("before", "before")):
        found[protocol] = {x: {k: [m[key][x][k] for m in measured] for k in ("auc", "logloss", "gauc")} for x in labels}
    found["noisy"] = {x: [m["noisy"][x] for m in measured] for x in labels}
    found |= {k: [m[k] for m in measured] for k in NUMBERS}
    return found | {k: measured[0][k] for k in ("rows", "parameters", "memory_bytes", "flops")}


def compared(runs: Sequence[Replays], cold: int) -> dict[str, Any]:
    """{protocol: {auc: {objective: of a variant}, slices: {slice: {rows, auc: of a variant}}, tau: of a variant}} of one backbone.

    "of a variant" is {variant: {value, and its difference to each of AGAINST}}.
    """
    ready = {r.cell.variant: r for r in runs if r.finished}
    if PLAIN not in ready:
        return {}
    first, seeds = ready[PLAIN], {name: r.finished for name, r in ready.items()}
    folder = first.folders[first.finished[0]]
    labels, users, groups = (kept(folder, name) for name in ("labels", "users", "groups"))
    seen = {side: kept(folder, f"{side}-events") for side in ("user", "item")}
    objectives = list(first.states[first.finished[0]].measured["test"])
    found: dict[str, Any] = {}
    for protocol in PROTOCOLS:
        scores = {key: ready[name].mean(protocol, own) for key, (name, own) in views(seeds).items()}
        auc = {x: _auc({n: s[:, t] for n, s in scores.items()}, labels[:, t], users, seeds) for t, x in enumerate(objectives)}
        main = {n: s[:, 0] for n, s in scores.items()}
        slices = {name: _sliced(main, labels[:, 0], users, rows, seeds) for name, rows in _slices(seen, protocol, cold).items()}
        found[protocol] = {"auc": auc, "slices": slices, "tau": _agreement(main, groups, seeds)}
    return found


def _slices(seen: Mapping[str, NDArray[np.int32]], protocol: Protocol, cold: int) -> dict[str, NDArray[np.bool_]]:
    """Rows of cold users and of cold items, and of users with longer histories."""
    users, items = (seen[side][:, 0 if protocol == "prequential" else 1] for side in ("user", "item"))
    found = {"cold users": users <= cold, "cold items": items <= cold}
    edges = [cold, *(n for n in HISTORIES if n > cold)]
    for low, high in zip(edges, [*edges[1:], None], strict=True):
        name = f"users of more than {low} events" if high is None else f"users of {low + 1} to {high} events"
        found[name] = (users > low) & (True if high is None else users <= high)
    return {name: np.asarray(rows) for name, rows in found.items()}


def _auc(scores: Mapping[str, NDArray], labels: NDArray, users: NDArray, seeds: Seeds) -> dict[str, Any]:
    return _told(resampled(scores, labels, groups=users, resamples=RESAMPLES), seeds)


def _sliced(scores: Mapping[str, NDArray], labels: NDArray, users: NDArray, rows: NDArray[np.bool_], seeds: Seeds) -> dict[str, Any]:
    """AUC of the slice's rows; no value where one class alone is there."""
    y = labels[rows]
    both = bool(y.any() and not y.all())
    return {"rows": int(rows.sum()), "auc": _auc({n: s[rows] for n, s in scores.items()}, y, users[rows], seeds) if both else {}}


def _agreement(scores: Mapping[str, NDArray], groups: NDArray, seeds: Seeds) -> dict[str, Any]:
    """With the ranking model; empty without one."""
    if RANKER not in scores:
        return {}
    own = {name: of for name, of in seeds.items() if name != RANKER}
    taus = {key: Agreement(scores[key], scores[RANKER], groups=groups).kendall() for key in views(own)}
    return _told(resampled_means(taus, resamples=RESAMPLES), own)


def _told(found: Resampled, seeds: Seeds) -> dict[str, Any]:
    of = {name: [o for o in AGAINST if o in seeds and o != name] for name in seeds}
    return {
        name: {"value": round(found.values[name], 6),
               **{o: told for o in others if (told := difference(found, name, o, seeds))}}
        for name, others in of.items()
    }  # fmt: skip
