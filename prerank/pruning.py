"""A trained COLD or FSCD made smaller: the fields that its gate finds weak are left out, down to a number or to a latency budget.

    made = prune(open_run("runs/cold"), "runs/cold-small", budget=800)      microseconds at 1,000 candidates

A field's strength is its mean gate over validation rows. The folder is a run: its config has the option `keep`, its weights are the
large model's, cut, so that it can be evaluated as it is; pruned.json says what was kept, what it costs, and what that did to
validation. The papers then train the small model, which `prerank train` does with that config and an output of its own, from the start.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prerank import build
from prerank.batch import Columns
from prerank.config import Config, ConfigError, Model, dump, load
from prerank.data import Loader
from prerank.data.encoder import digest
from prerank.metrics import auc, logloss, sigmoid
from prerank.rankers import Ranker
from prerank.rankers.cutting import gated, inherit, observing
from prerank.rankers.selection import select
from prerank.run import Run
from prerank.training.checkpoint import save_weights, write_text
from prerank.training.lock import locked

CHOSEN_ON = "validation"


@dataclass(frozen=True, slots=True)
class Pruned:
    """The smaller run, and what pruned.json says."""

    run: Run
    report: dict[str, Any]


def prune(run: Run, folder: str | Path, *, fields: int | None = None, budget: float | None = None, candidates: int = 1000) -> Pruned:
    """Keep the strongest `fields`, or as many as score `candidates` of one user within `budget` microseconds. Raises ConfigError.

    Latency is the median of forward passes of torch on one thread, lookups included, in CPU time: what they take where nothing else runs.
    At least one field of each side stays.
    """
    whole, path = run.model, Path(folder)
    _check(run, path, fields, budget, candidates)
    assert isinstance(whole, Ranker)
    with observing(whole) as seen:
        logits, labels = run.logits(CHOSEN_ON)
    strengths = _strengths(run, seen.gates)
    clock = Clock(run, candidates)
    before = clock(whole)

    def strongest(count: int) -> Ranker:
        return _build(run.config, run, _strongest(strengths, count))

    least, most = len(_strongest(strengths, 0)), len(strengths)
    count = _within(budget, lambda n: clock(strongest(n)), least, most, before) if budget is not None else fields
    if count is None or not least <= count < most:
        raise ConfigError(f"prune: fields must be at least {least}, so that both sides have one, and below the model's {most}; got {count}")
    small = strongest(count)
    inherit(small, whole, seen)
    keep = _strongest(strengths, count)
    made = _write(run, small, keep, path)
    report = {
        "pruned_from": str(run.folder), "chosen_on": CHOSEN_ON,
        "fields": [{"field": s.field, "side": s.side, "gate": round(s.gate, 6), "kept": s.field in keep} for s in strengths],
        "latency": {"candidates": candidates, "threads": 1, "time": "cpu", "passes": Clock.passes, "budget_us": budget,
                    "before_us": round(before, 1), "after_us": round(clock(small), 1)},
        "parameters": {"before": _size(whole), "after": _size(small)},
        CHOSEN_ON: {"before": _measures(run, logits, labels), "after": _measures(made, *made.logits(CHOSEN_ON))},
    }  # fmt: skip
    write_text(path / "pruned.json", json.dumps(report, indent=1))
    return Pruned(made, report)


class Clock:
    """CPU microseconds in which a ranker scores k candidates for one user, both from validation rows.  # model -> median"""

    passes = 30

    def __init__(self, run: Run, candidates: int) -> None:
        rows = run.dataset.rows(CHOSEN_ON)[:candidates]
        batch = next(iter(Loader(run.dataset, rows, candidates, shuffle="none").epoch(0)))
        items = len(next(iter(batch.item.values())))  # fewer than asked for are taken again
        self.users: Columns = {k: v[:1] for k, v in batch.user.items()}
        self.items: Columns = {k: v[torch.arange(candidates) % items] for k, v in batch.item.items()}
        self.pairs: tuple[Tensor, Tensor] = torch.zeros(candidates, dtype=torch.int64), torch.arange(candidates)

    def __call__(self, model: Ranker) -> float:
        """The median of some passes, after three to warm up."""
        threads, taken = torch.get_num_threads(), []
        torch.set_num_threads(1)
        try:
            with torch.inference_mode():
                for _ in range(3 + self.passes):
                    start = time.thread_time()
                    model.eval().pairs(self.users, self.items, *self.pairs)
                    taken.append(time.thread_time() - start)
        finally:
            torch.set_num_threads(threads)
        return 1e6 * statistics.median(taken[3:])


@dataclass(frozen=True, slots=True)
class _Strength:
    field: str
    side: str  # user, item, or both: a cross
    gate: float


def _check(run: Run, folder: Path, fields: int | None, budget: float | None, candidates: int) -> None:
    if (fields is None) == (budget is None):
        raise ConfigError("prune: needs either a number of fields or a latency budget, and not both")
    if candidates < 1:
        raise ConfigError(f"prune: candidates must be at least 1; got {candidates}")
    if (folder / "config.yaml").exists():
        raise ConfigError(f"folder '{folder}': holds a run already; give another one")
    try:
        gated(run.model)
    except ValueError as error:
        raise ConfigError(f"run '{run.folder}', model '{run.config.model.name}': {error}") from None


def _strengths(run: Run, gates: Tensor) -> list[_Strength]:
    """The model's fields, strongest first."""
    options = run.config.model.options
    selection = select(run.dataset.schema, options.get("keep"), options.get("cross", ()))
    found = [_Strength(*one) for one in zip(selection.names, selection.sides, gates.tolist(), strict=True)]
    return sorted(found, key=lambda s: -s.gate)


def _strongest(strengths: Sequence[_Strength], count: int) -> list[str]:
    """Names of the first `count`, or of as few as have both sides when that is more."""
    chosen: list[_Strength] = []
    for side in ("user", "item"):
        if not any(s.side in (side, "both") for s in chosen):
            chosen.append(next(s for s in strengths if s.side in (side, "both")))
    ranked = [*chosen, *(s for s in strengths if s not in chosen)]
    return [s.field for s in ranked[: max(count, len(chosen))]]


def _within(budget: float, cost: Callable[[int], float], least: int, most: int, before: float) -> int:
    """The largest number of fields below `most` whose cost is within the budget, by bisection. Raises ConfigError."""
    if before <= budget:
        raise ConfigError(f"prune: all {most} fields take {before:.0f} us, within the budget of {budget:g}; there is nothing to leave out")
    if (lowest := cost(least)) > budget:
        raise ConfigError(f"prune: {least} fields still take {lowest:.0f} us, over the budget of {budget:g}; make the layers smaller")
    low, high = least, most  # low is within, high is not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= budget else (low, middle)
    return low


def _smaller(config: Config, keep: Sequence[str]) -> Config:
    """The config with `keep`; the complexity term goes, as there is nothing left to choose."""
    model = Model.model_validate({"name": config.model.name, **config.model.options, "keep": list(keep)})
    terms = tuple(t for t in config.objective if t.loss != "complexity")
    return config.model_copy(update={"model": model, "objective": terms})


def _build(config: Config, run: Run, keep: Sequence[str]) -> Ranker:
    model = build.model(_smaller(config, keep).model, run.dataset.schema, run.dataset.sizes)
    assert isinstance(model, Ranker)
    return model.eval()


def _write(run: Run, small: Ranker, keep: Sequence[str], folder: Path) -> Run:
    """The folder of the smaller run."""
    config = _smaller(load(run.folder / "config.yaml"), keep).model_copy(update={"output": str(folder)})
    result = {"name": config.name, "model": config.model.name, "seed": config.training.seed, "leaky": config.leaky,
              "parameters": _size(small), "pruned_from": str(run.folder), "encoders": digest(run.dataset.encoders)}  # fmt: skip
    with locked(folder):
        write_text(folder / "config.yaml", dump(config))
        write_text(folder / "result.json", json.dumps(result, indent=1))
        save_weights(folder / "model.safetensors", small.state_dict())
    return Run(folder, config.model_copy(update={"data": run.config.data}), run.dataset, small)


def _measures(run: Run, logits: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, float]]:
    return {
        name: {"auc": auc(logits[:, t], labels[:, t] > 0), "logloss": logloss(sigmoid(logits[:, t]), labels[:, t] > 0)}
        for t, name in enumerate(run.dataset.schema.objectives)
    }


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
