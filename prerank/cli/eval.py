"""`prerank eval`: what a trained run is worth, on a split it has not been fitted to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from prerank.run import Run


def evaluate(
    run: Annotated[Path | None, typer.Argument(help="run folder; default: the newest below runs/")] = None,
    split: Annotated[str, typer.Option(help="test, validation or train")] = "test",
    resamples: Annotated[int, typer.Option(min=0, help="bootstrap resamples of the intervals; 0: none")] = 200,
    json_: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Measure a run: AUC, GAUC, LogLoss, calibration, with bootstrap intervals. Writes metrics-SPLIT.json beside it.

    These are of impressions. With a section `evaluation` in its config recall@K and ndcg@K follow, in the pool of candidates that it
    describes, which the table states; intervals draw users.

    Examples:

        prerank eval runs/honest-inttower

        prerank eval --split validation --json
    """
    from prerank.config import ConfigError, nearest
    from prerank.report import Column, Table
    from prerank.run import open_run
    from prerank.training.checkpoint import write_text

    splits = ("train", "validation", "test")
    if split not in splits:
        raise ConfigError(f"--split: unknown split '{split}'{nearest(split, splits)}")
    opened = open_run(run)
    found = opened.evaluate(split, resamples=resamples)
    leaky = opened.config.leaky
    if split == "train" and opened.model.remembers:
        leaky = "the model's histories hold the train rows' own labels"
    record = {"run": str(opened.folder), "model": opened.config.model.name, "split": split, "leaky": leaky,
              "metrics": {name: m.to_dict() for name, m in found.items()}}  # fmt: skip
    ranked = _ranked(opened, split, resamples) if opened.config.evaluation is not None else None
    record |= {"ranking": ranked} if ranked else {}
    write_text(opened.folder / f"metrics-{split}.json", json.dumps(record, indent=1))
    if json_:
        typer.echo(json.dumps(record))
        return
    columns = [Column(c) for c in ("label", "AUC", "95 %", "GAUC", "LogLoss", "ECE", "pred/obs", "rows")]
    table = Table(f"{opened.config.name} on {split}", columns)
    for name, m in found.items():
        ci = f"{m.auc_ci.low:.4f}..{m.auc_ci.high:.4f}" if m.auc_ci else None
        table.add({"label": name, "AUC": m.auc, "95 %": ci, "GAUC": m.gauc, "LogLoss": m.logloss, "ECE": m.ece,
                   "pred/obs": m.calibration, "rows": m.rows}, leaky=leaky)  # fmt: skip
    Console().print(table.rich())
    if ranked:
        pool = Table(f"{opened.config.name} on {split}: {ranked['pool']}", [Column(c) for c in ("metric", "value", "95 %", "lists")])
        for name, m in ranked["metrics"].items():
            interval = f"{m['interval'][0]:.4f}..{m['interval'][1]:.4f}" if "interval" in m else None
            pool.add({"metric": name, "value": m["value"], "95 %": interval, "lists": ranked["lists"]}, leaky=leaky)
        Console().print(pool.rich())


def _ranked(run: Run, split: str, resamples: int) -> dict[str, Any]:
    """Recall@K and NDCG@K in the run's pool: values, intervals over users, and what the pool is."""
    from prerank.metrics import grouped_interval

    pool = run.pool(split)
    found = run.retrieve(pool)
    metrics: dict[str, dict[str, Any]] = {}
    for name, grouped in found.metrics.items():
        metrics[name] = {"value": grouped.value}
        if resamples:
            interval = grouped_interval(found.of_users(name), resamples=resamples)
            metrics[name]["interval"] = [interval.low, interval.high]
    return {"pool": pool.said, "lists": len(found.users), "metrics": metrics}
