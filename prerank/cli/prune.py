"""`prerank prune`: a trained COLD or FSCD with fewer fields, as many as asked for or as a latency budget allows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def prune(
    run: Annotated[Path, typer.Argument(help="run folder of a cold or fscd model")],
    to: Annotated[Path, typer.Option(help="folder of the smaller run")],
    fields: Annotated[int | None, typer.Option(help="how many fields are kept")] = None,
    budget: Annotated[float | None, typer.Option(help="CPU microseconds in which the candidates must be scored")] = None,
    candidates: Annotated[int, typer.Option(help="candidates of the budget")] = 1000,
    json_: Annotated[bool, typer.Option("--json", help="print pruned.json instead of a table")] = False,
) -> None:
    """Leave out the fields that the model's gate finds weak on validation rows; the result is a run, with the option `keep`.

    Examples:

        prerank prune runs/cold --fields 6 --to runs/cold-6

        prerank prune runs/cold --budget 800 --candidates 1000 --to runs/cold-fast
    """
    from prerank.pruning import prune as cut
    from prerank.report import Column, Table
    from prerank.run import open_run

    made = cut(open_run(run), to, fields=fields, budget=budget, candidates=candidates)
    if json_:
        typer.echo(json.dumps(made.report))
        return
    table = Table(f"fields of {run}", [Column(c) for c in ("field", "side", "mean gate", "kept")])
    for row in made.report["fields"]:
        table.add({"field": row["field"], "side": row["side"], "mean gate": row["gate"], "kept": "yes" if row["kept"] else "no"})
    Console().print(table.rich())
    latency, validation = made.report["latency"], made.report["validation"]
    typer.echo(f"{candidates:,} candidates: {latency['before_us']:,.0f} us of CPU before, {latency['after_us']:,.0f} after")
    for label, before in validation["before"].items():
        after = validation["after"][label]
        typer.echo(f"{label}, validation, not trained again: AUC {before['auc']:.4f} before, {after['auc']:.4f} after; "
                   f"LogLoss {before['logloss']:.4f} before, {after['logloss']:.4f} after")  # fmt: skip
    typer.echo(f"{to}: a run; train it anew with `prerank train --config {to}/config.yaml --set output=...`")
