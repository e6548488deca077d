"""`prerank train`: a config in, a run folder out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prerank.cli.telling import Telling


def train(
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML file of the run")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="override one setting: --set training.seed=3")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue a stopped or killed run, exactly where it stood")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what is in the output folder")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress, only the result")] = False,
) -> None:
    """Train a model as a YAML file says.

    Examples:

        prerank train --config configs/ml1m/honest-inttower.yaml

        prerank train -c my.yaml --set training.seed=1 --set output=runs/seed1

        prerank train -c my.yaml --resume
    """
    from prerank.config import ConfigError, load
    from prerank.run import train as start
    from prerank.training import Quiet, console_progress

    if resume and overwrite:
        raise ConfigError("train: --resume continues a run and --overwrite discards it; give one of them")
    telling = Telling(quiet)
    settings = load(config, set_ or [])
    if settings.leaky:
        telling.console.print(f"[yellow]LEAKY protocol:[/] {settings.leaky}", highlight=False)
    progress = Quiet() if quiet else console_progress()
    run, result = start(settings, resume=resume, overwrite=overwrite, progress=progress, preparing=telling.preparing)
    best = "no validation rows" if result.best is None else f"validation {settings.training.monitor} {result.best:.4f}"
    typer.echo(f"{run.folder}: best epoch {result.best_epoch} of {len(result.history)}, {best}, "
               f"{result.parameters:,} parameters, {result.rows_per_second:,.0f} rows/s "
               f"({result.rows_per_cpu_second:,.0f} per CPU second)")  # fmt: skip
    typer.echo(f"next: prerank eval {run.folder}")
