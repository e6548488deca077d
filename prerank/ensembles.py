"""Trained runs joined to one scorer: weights fitted on validation, measured on test, and a folder that says both.

    made = ensemble([open_run("runs/deepfm"), open_run("runs/dcnv2")], "runs/teacher")
    model, dataset = open_ensemble("runs/teacher")        Batch -> Output, as any ranker

The folder holds ensemble.json (members, weights, metrics on validation and test, the members' beside the ensemble's) and
metrics-test.json, which looks like any run's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prerank.config import ConfigError
from prerank.data import Dataset
from prerank.metrics import Metrics, evaluate
from prerank.rankers.ensemble import Ensemble, fit_weights
from prerank.run import Run, open_run
from prerank.training.checkpoint import write_text

FITTED_ON, MEASURED_ON = "validation", "test"


@dataclass(frozen=True, slots=True)
class Joined:
    """What `ensemble` found.

    weights   {objective: [M], in the runs' order}
    metrics   {split: {objective: of the ensemble}}
    members   {split: [{objective: of the member}]}
    """

    folder: Path
    weights: dict[str, list[float]]
    metrics: dict[str, dict[str, Metrics]]
    members: dict[str, list[dict[str, Metrics]]]


def ensemble(runs: Sequence[Run], folder: str | Path, *, resamples: int = 200, overwrite: bool = False) -> Joined:
    """Fit weights on the runs' validation rows, measure on their test rows, write `folder`. Raises ConfigError.

    The runs must be of the same rows: the same log, split and labels; their features and models may differ.
    """
    path = Path(folder)
    _check(runs, path, overwrite)
    names = runs[0].dataset.schema.objectives
    weights: dict[str, list[float]] = {}
    metrics: dict[str, dict[str, Metrics]] = {}
    members: dict[str, list[dict[str, Metrics]]] = {}
    for split in (FITTED_ON, MEASURED_ON):
        z, y = _logits(runs, split)
        groups = runs[0].groups(split)
        if split == FITTED_ON:
            weights = {name: fit_weights(z[:, :, t], y[:, t] > 0).tolist() for t, name in enumerate(names)}
        joined = {name: np.tensordot(weights[name], z[:, :, t], axes=1) for t, name in enumerate(names)}
        metrics[split] = {name: evaluate(joined[name], y[:, t] > 0, groups=groups, resamples=resamples) for t, name in enumerate(names)}
        members[split] = [{name: evaluate(one[:, t], y[:, t] > 0, groups=groups) for t, name in enumerate(names)} for one in z]
    made = Joined(path, weights, metrics, members)
    _write(made, runs)
    return made


def open_ensemble(folder: str | Path) -> tuple[Ensemble, Dataset]:
    """The ensemble as a model, and the data its members share. Raises ConfigError, also when a member is no longer what it was."""
    record = _record(Path(folder))
    runs = [open_run(member["run"]) for member in record["members"]]
    for run, member in zip(runs, record["members"], strict=True):
        if _digest(run.folder) != member["weights_sha256"]:
            raise ConfigError(f"ensemble '{folder}': run '{run.folder}' has been trained again since; fit the ensemble again")
        if run.dataset.fingerprint != runs[0].dataset.fingerprint:
            raise ConfigError(f"ensemble '{folder}': as one model its members must read the same prepared data; "
                              f"'{run.folder}' and '{runs[0].folder}' do not")  # fmt: skip
    weights = torch.tensor([list(member["weights"].values()) for member in record["members"]])  # [M, T]
    return Ensemble([run.model for run in runs], weights).eval(), runs[0].dataset


def members(folder: str | Path) -> list[Path]:
    """The run folders of an ensemble. Raises ConfigError."""
    return [Path(member["run"]) for member in _record(Path(folder))["members"]]


def _check(runs: Sequence[Run], folder: Path, overwrite: bool) -> None:
    if len(runs) < 2:
        raise ConfigError(f"ensemble: needs at least two runs; got {len(runs)}")
    if (folder / "config.yaml").exists() or ((folder / "ensemble.json").exists() and not overwrite):
        raise ConfigError(f"folder '{folder}': holds a run or an ensemble; give another one, or replace an ensemble with --overwrite")
    for run in runs[1:]:
        if run.dataset.schema.objectives != runs[0].dataset.schema.objectives:
            raise ConfigError(f"ensemble: all runs must have the same labels; '{runs[0].folder}' has "
                              f"{', '.join(runs[0].dataset.schema.objectives)}, '{run.folder}' "
                              f"{', '.join(run.dataset.schema.objectives)}")  # fmt: skip
        for split in (FITTED_ON, MEASURED_ON):
            if not _same_rows(runs[0].dataset, run.dataset, split):
                raise ConfigError(f"ensemble: all runs must have the same {split} rows, in the same order; those of '{run.folder}' "
                                  f"are not those of '{runs[0].folder}'")  # fmt: skip


def _same_rows(a: Dataset, b: Dataset, split: str) -> bool:
    """True when a split holds the same users, items and labels row by row."""
    if a.fingerprint == b.fingerprint:
        return True
    rows = a.rows(split), b.rows(split)
    if len(rows[0]) != len(rows[1]) or not np.array_equal(a.labels[rows[0]], b.labels[rows[1]]):
        return False
    for ids, row in (("user_ids", "user_row"), ("item_ids", "item_row")):
        one, two = (getattr(d, ids).gather(getattr(d, row)[r]) for d, r in zip((a, b), rows, strict=True))
        if one.dtype != two.dtype or not one.equals(two, check_names=False):
            return False
    return True


def _logits(runs: Sequence[Run], split: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of a split.  # float32 [M, n, T], [n, T]"""
    found = [run.logits(split) for run in runs]
    return np.stack([z for z, _ in found]), found[0][1]


def _write(made: Joined, runs: Sequence[Run]) -> None:
    leaky = next((run.config.leaky for run in runs if run.config.leaky), None)
    members = [
        {"run": str(run.folder), "model": run.config.model.name, "weights_sha256": _digest(run.folder),
         "weights": {name: w[m] for name, w in made.weights.items()},
         "metrics": {split: _plain(found[m]) for split, found in made.members.items()}}
        for m, run in enumerate(runs)
    ]  # fmt: skip
    record = {"fitted_on": FITTED_ON, "leaky": leaky, "members": members, "metrics": {s: _plain(m) for s, m in made.metrics.items()}}
    made.folder.mkdir(parents=True, exist_ok=True)
    write_text(made.folder / "ensemble.json", json.dumps(record, indent=1))
    measured = {"run": str(made.folder), "model": "ensemble", "split": MEASURED_ON, "leaky": leaky,
                "metrics": _plain(made.metrics[MEASURED_ON])}  # fmt: skip
    write_text(made.folder / f"metrics-{MEASURED_ON}.json", json.dumps(measured, indent=1))


def _plain(metrics: dict[str, Metrics]) -> dict[str, Any]:
    return {name: m.to_dict() for name, m in metrics.items()}


def _record(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "ensemble.json").read_text())
    except FileNotFoundError:
        raise ConfigError(f"folder '{folder}': holds no ensemble.json; give the folder that `prerank ensemble` wrote") from None
    except ValueError as error:
        raise ConfigError(f"ensemble '{folder}': ensemble.json cannot be read: {error}") from None
    return found


def _digest(run: Path) -> str:
    with (run / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
