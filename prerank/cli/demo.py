"""`prerank demo`: from a log to a scored request in one command, on real data where it is found."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer


def demo(
    to: Annotated[Path, typer.Option("--to", help="folder for the runs, the generation and the pictures")] = Path("demo"),
    data: Annotated[str | None, typer.Option("--data", help="kuairand or simulated; default: kuairand when it is found")] = None,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="epochs at most")] = 6,
    requests: Annotated[int, typer.Option("--requests", min=1, help="requests a number of candidates")] = 200,
) -> None:
    """Prepare a log, train DSSM and IntTower, compare them, export, serve, score real users over HTTP, draw pictures.

    Uses KuaiRand-Pure when it is found (PRERANK_DATA, or the cache that `prerank data get` fills), else a simulated cascade.

    Examples:

        prerank demo

        PRERANK_DATA=~/data prerank demo --to /tmp/demo
    """
    from rich.console import Console

    from prerank.cli import showcase

    started = time.monotonic()
    console = Console(highlight=False)
    name, why = showcase.choose(data)
    console.print(f"[bold]Data: {name}[/] ({why})")
    runs = showcase.train_models(to, name, epochs, console)
    console.print(showcase.comparison(runs, name).rich())
    showcase.serve_and_score(to, runs, requests, console)
    console.print(f"Pictures: {', '.join(str(p) for p in showcase.pictures(to, runs))}")
    console.print(f"Done in {time.monotonic() - started:.0f} s.")
