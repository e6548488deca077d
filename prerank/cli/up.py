"""`prerank up`: the whole system on one machine, in a world that clicks and drifts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from prerank.cli.telling import Telling


def up(
    minutes: Annotated[float, typer.Option(min=0.1, help="how long the world lives")] = 5.0,
    to: Annotated[Path, typer.Option(help="folder of the system: logs, generations, checkpoints, report")] = Path("up"),
    rate: Annotated[float, typer.Option(min=0.1, help="requests a second")] = 50.0,
    drift: Annotated[float, typer.Option(min=0, help="quarter turns of all tastes over the whole time")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="of the world")] = 0,
    retrain: Annotated[bool, typer.Option(help="at the end, train from scratch on the whole log, to compare with")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the system that the folder holds")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress, only the report")] = False,
) -> None:
    """Start a server, an event log, label waiting and a trainer, and let simulated users live with them.

    The world's tastes drift. What learning online is worth is told as true click probability: of what is shown, of what the first model,
    frozen, would have shown, of a model trained from scratch at the end, and of the best and of a blind choice. A page of it lies in the
    folder.

    Examples:

        prerank up --minutes 5

        prerank up --minutes 2 --rate 20 --drift 0.5 --to /tmp/up --overwrite
    """
    from rich.console import Console

    from prerank.online.report import said, table, write
    from prerank.online.up import up as start
    from prerank.online.view import live, of_system

    telling = Telling(quiet)
    with live(telling.console, f"prerank up, {60 * minutes:g} s", quiet=quiet) as show:

        def told(interval: dict[str, Any]) -> None:
            show(of_system(interval))

        report = start(to, minutes=minutes, rate=rate, drift=drift, seed=seed, retrain=retrain, overwrite=overwrite, say=telling.say,
                       told=told)  # fmt: skip
    Console().print(table(report).rich())
    for line in said(report):
        typer.echo(line)
    typer.echo(f"written: {', '.join(str(p) for p in (to / 'report.json', *write(report, to)))}")
