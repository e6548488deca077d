"""A run: a folder that holds a config, its checkpoints, its weights and what was measured.

    run, result = train(config)          # runs/NAME: config.yaml, checkpoint/, model.safetensors, history.jsonl
    metrics = run.evaluate("test")       # {objective: Metrics}
    run = open_run("runs/NAME")          # the same model later
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from prerank import build
from prerank.config import Config, ConfigError, dump, load
from prerank.data import Dataset, Loader, check_lists, prepare
from prerank.data.encoder import digest
from prerank.datasets import resolve
from prerank.losses import DistillationTerm
from prerank.metrics import Metrics, evaluate
from prerank.rankers import Ranker
from prerank.towers import TwoTower
from prerank.training import Progress, Quiet, Result, fit, predict
from prerank.training.checkpoint import write_text
from prerank.training.device import device_of
from prerank.training.lock import locked
from prerank.training.pool import Measured, Pool

NEWEST_IN = Path("runs")
WRITTEN = ("config.yaml", "model.safetensors", "history.jsonl", "result.json",
           "metrics-train.json", "metrics-validation.json", "metrics-test.json")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """A trained model with its data; see the module's first lines."""

    folder: Path
    config: Config
    dataset: Dataset
    model: TwoTower | Ranker

    def logits(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Logits and labels of a split's rows, in the log's order.  # float32 [n, T], [n, T]"""
        device = device_of(self.config.training)
        loader = Loader(self.dataset, self._rows(split), self.config.training.eval_batch_size, shuffle="none")
        try:
            return predict(self.model.to(device), loader.epoch(0), device)
        finally:
            self.model.cpu()  # at rest a model is where export and serving want it

    def groups(self, split: str) -> np.ndarray:
        """What GAUC groups by: the request where the log names it, else the user.  # int64 [n]"""
        rows = self._rows(split)
        return np.asarray(self.dataset.user_row[rows] if self.dataset.request is None else self.dataset.request[rows])

    def evaluate(self, split: str, *, resamples: int = 200, seed: int = 0) -> dict[str, Metrics]:
        """Metrics of every objective on a split, with bootstrap intervals over groups. Raises ConfigError."""
        z, y = self.logits(split)
        groups = self.groups(split)
        found = {}
        unlearned = build.unlearned(self.config.objective, self.dataset.schema)
        for t, name in enumerate(self.dataset.schema.objectives):
            if name in unlearned:
                continue
            try:
                found[name] = evaluate(z[:, t], y[:, t] > 0, groups=groups, resamples=resamples, seed=seed)
            except ValueError as error:
                raise ConfigError(f"label '{name}', {split} rows: {error}") from None
        return found

    def pool(self, split: str) -> Pool:
        """The candidates in which recall@K and ndcg@K are measured. Raises ConfigError without section `evaluation`."""
        if self.config.evaluation is None:
            raise ConfigError(f"run '{self.folder}': its config has no section evaluation, which says in which candidates to look")
        return Pool(self.dataset, split, self.config.evaluation)

    def retrieve(self, pool: Pool) -> Measured:
        """Recall@K and NDCG@K of each list of a pool."""
        device = device_of(self.config.training)
        try:
            return pool.measure(self.model.to(device), device)
        finally:
            self.model.cpu()

    def _rows(self, split: str) -> np.ndarray:
        rows = self.dataset.rows(split)
        if len(rows) == 0:
            raise ConfigError(f"run '{self.folder}': its data has no {split} rows; give data.split.{split}")
        return rows

    def __repr__(self) -> str:
        return f"<Run {self.folder}: {self.config.model.name}, {self.dataset!r}>"


def train(config: Config, *, resume: bool = False, overwrite: bool = False, progress: Progress | None = None,
          preparing: Callable[[str, float], None] | None = None, each_epoch: Callable[[dict[str, Any]], None] | None = None
          ) -> tuple[Run, Result]:  # fmt: skip
    """Prepare the data, train in `config.output`, write result.json. Raises ConfigError, DataError and what `fit` raises."""
    folder = Path(config.output)
    resolved = config.model_copy(update={"data": resolve(config.data)})
    schema = resolved.data.schema_()
    build.check_terms(config, resolved.data, schema)  # before the data: a typo should not cost a preparation
    build.check_model(config.model, schema, config.objective, config.synergy)
    for where, lists in (("training.lists", config.training.lists), ("evaluation", config.evaluation)):
        if lists is not None:
            check_lists(schema, lists, resolved.data.request is not None, where)
    with locked(folder):
        _claim(folder, config, resume, overwrite)
        dataset = prepare(resolved.data, progress=preparing)
        _check_labels(config, dataset)
        for label in build.unlearned(config.objective, schema):
            (progress or Quiet()).say(f"label '{label}': no term of the objective looks at it; its logit is neither trained nor evaluated")
        objective = build.objective(config.objective, dataset.schema, dataset.counts)
        torch.manual_seed(config.training.seed)
        model = build.model(config.model, dataset.schema, dataset.sizes, config.synergy)
        write_text(folder / "config.yaml", dump(config))
        result = fit(model, objective, dataset, config.training, folder, resume=resume, progress=progress or Quiet(),
                     each_epoch=each_epoch, evaluation=config.evaluation)  # fmt: skip
        fits = {"encoders": digest(dataset.encoders), "weights_sha256": _checksum(folder / "model.safetensors")}
        write_text(folder / "result.json", json.dumps({**_result(result, config), **fits}, indent=1))
    model.cpu()
    return Run(folder, resolved, dataset, model), result


def open_run(folder: str | Path | None = None) -> Run:
    """A trained run; without a folder the newest one below runs/. Raises ConfigError."""
    path = _newest() if folder is None else Path(folder)
    weights = path / "model.safetensors"
    if not (path / "config.yaml").exists():
        raise ConfigError(f"run folder '{path}': holds no config.yaml; give the folder that `prerank train` wrote")
    config = load(path / "config.yaml")
    if not weights.exists():
        raise ConfigError(f"run folder '{path}': its training has not finished; continue it with `prerank train --resume`")
    resolved = config.model_copy(update={"data": resolve(config.data)})
    dataset = prepare(resolved.data)
    written = _written(path)
    if written.get("encoders") not in (None, digest(dataset.encoders)):
        raise ConfigError(f"run folder '{path}': its weights do not fit the data as it is now: values or their order have changed "
                          "since it was trained; train again, or bring the files back as they were")  # fmt: skip
    model = build.model(config.model, dataset.schema, dataset.sizes, config.synergy, space=build.space(config, digest(dataset.encoders)))
    try:
        model.load_state_dict(load_file(weights))
    except SafetensorError as error:
        raise ConfigError(f"run folder '{path}': model.safetensors cannot be read: {error}") from None
    except RuntimeError as error:
        why = str(error).splitlines()[1].strip()
        raise ConfigError(f"run folder '{path}': its weights do not fit the data as it is now: {why}") from None
    if written.get("weights_sha256") not in (None, _checksum(weights)):
        raise ConfigError(f"run folder '{path}': model.safetensors is damaged: it is not what training wrote (checksum); train again, or "
                          "bring the file back as it was")  # fmt: skip
    model.eval()
    return Run(path, resolved, dataset, model)


def _written(folder: Path) -> dict[str, Any]:
    """result.json: among others the digests of encoders and weights; empty when a run did not come to write it."""
    try:
        found = json.loads((folder / "result.json").read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"run folder '{folder}': result.json cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"run folder '{folder}': result.json cannot be read: it holds no mapping")
    return found


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _claim(folder: Path, config: Config, resume: bool, overwrite: bool) -> None:
    """A folder with a run in it is continued or overwritten only when that is asked for."""
    before = folder / "config.yaml"
    kept = (folder / "checkpoint" / "current", folder / "model.safetensors")
    if not before.exists() or not any(p.exists() for p in kept):  # a run that ended before its first checkpoint left nothing to keep
        return
    if overwrite and not resume:
        for name in WRITTEN:
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
        return
    if not resume:
        raise ConfigError(
            f"run folder '{folder}': holds a run already; continue it with --resume, replace it with --overwrite, or set output"
        )
    old, new = load(before), config
    for part in ("data", "model", "synergy", "objective", "training", "evaluation"):
        if getattr(old, part) != getattr(new, part):
            raise ConfigError(f"run folder '{folder}': was started with another '{part}' section; resume needs the same one ({before})")


def _check_labels(config: Config, dataset: Dataset) -> None:
    """What would fail only in training: labels and scores that a loss cannot take, a validation split of one class. Raises ConfigError."""
    names = dataset.schema.objectives
    for term in config.objective:
        label = term.label or names[0]
        low, high = _range(dataset, "train", names.index(label))
        if term.loss in ("logloss", "jrc") and not 0 <= low <= high <= 1:  # sums and levels are graded, and belong to list-wise losses
            raise ConfigError(f"objective '{term.loss}': label '{label}' must lie in [0, 1]; its values go from {low:g} to {high:g}; "
                              "make it binary with a rule, or weight its columns down")  # fmt: skip
    for made in build.objective(config.objective, dataset.schema).terms:
        if isinstance(made, DistillationTerm) and dataset.teacher is not None:
            try:
                made.check_scores(torch.from_numpy(np.array(dataset.teacher)))
            except ValueError as error:
                raise ConfigError(f"{error}") from None
    low, high = _range(dataset, "validation", 0)
    n = len(dataset.rows("validation"))
    if n and (low > 0) == (high > 0):
        which = "positive" if low > 0 else "negative"
        raise ConfigError(f"label '{names[0]}': all {n} validation rows are {which}, so that no epoch can be chosen on them; "
                          "split differently, or set data.split.validation to 0")  # fmt: skip


def _range(dataset: Dataset, split: str, t: int, chunk: int = 1 << 20) -> tuple[float, float]:
    """Smallest and largest value of a label in a split, in bounded memory; (inf, -inf) without rows."""
    rows, low, high = dataset.rows(split), float("inf"), float("-inf")
    for first in range(0, len(rows), chunk):
        part = dataset.labels[rows[first : first + chunk], t]
        low, high = min(low, float(part.min())), max(high, float(part.max()))
    return low, high


def _newest() -> Path:
    runs = sorted(NEWEST_IN.glob("*/config.yaml"), key=lambda p: p.stat().st_mtime) if NEWEST_IN.is_dir() else []
    if not runs:
        raise ConfigError(f"no run found below '{NEWEST_IN}'; give a run folder, or train one with `prerank train`")
    return runs[-1].parent


def _result(result: Result, config: Config) -> dict[str, Any]:
    return {
        "name": config.name, "model": config.model.name, "seed": config.training.seed, "leaky": config.leaky,
        "best_epoch": result.best_epoch, "monitor": config.training.monitor, "best": result.best, "parameters": result.parameters,
        "rows": result.rows, "seconds": round(result.seconds, 3), "rows_per_second": round(result.rows_per_second),
        "rows_per_cpu_second": round(result.rows_per_cpu_second), "torch": torch.__version__,
    }  # fmt: skip
