"""`prerank ensemble`: several trained runs as one scorer, its weights fitted on validation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def ensemble(
    runs: Annotated[list[Path], typer.Argument(help="run folders of the same data, two or more")],
    to: Annotated[Path, typer.Option(help="folder that is written: weights and metrics")],
    resamples: Annotated[int, typer.Option(min=0, help="bootstrap resamples of the intervals; 0: none")] = 200,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an ensemble that the folder holds")] = False,
    json_: Annotated[bool, typer.Option("--json", help="print ensemble.json instead of a table")] = False,
) -> None:
    """Join trained runs: non-negative weights that sum to one, fitted on validation rows, measured on test rows.

    Examples:

        prerank ensemble runs/deepfm runs/dcnv2 runs/autoint --to runs/teacher
    """
    from prerank.ensembles import ensemble as join
    from prerank.report import Column, Table
    from prerank.run import open_run

    opened = [open_run(run) for run in runs]
    made = join(opened, to, resamples=resamples, overwrite=overwrite)
    if json_:
        typer.echo((made.folder / "ensemble.json").read_text())
        return
    leaky = next((run.config.leaky for run in opened if run.config.leaky), None)
    table = Table(f"{to} on test", [Column(c) for c in ("label", "run", "weight", "AUC", "GAUC", "LogLoss")])
    for label, weights in made.weights.items():
        rows = [(str(run.folder), w, found[label], run.config.leaky)
                for run, w, found in zip(opened, weights, made.members["test"], strict=True)]  # fmt: skip
        for run, weight, m, leak in (*rows, ("ensemble", sum(weights), made.metrics["test"][label], leaky)):
            table.add({"label": label, "run": run, "weight": weight, "AUC": m.auc, "GAUC": m.gauc, "LogLoss": m.logloss}, leaky=leak)
    Console().print(table.rich())
