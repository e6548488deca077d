"""`prerank tune`: settings searched on validation, within a latency budget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prerank.cli.telling import Telling


def tune(
    search: Annotated[Path, typer.Argument(help="YAML file of the search: run, space, trials, latency")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="override one key of it: --set trials=50")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue a stopped or killed search, or one that gets more trials")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the search that the folder holds")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress, only the result")] = False,
) -> None:
    """Try settings, keep the best on validation, write them as a config that can be trained. Test rows are never looked at.

    The file names the run and the values to try:

        run: configs/ml1m/honest-inttower.yaml

        trials: 30

        space: {training.optimizer.lr: {log: [1.0e-4, 1.0e-2]}, model.heads: {choices: [1, 2, 4]}}

        latency: {candidates: 1000, milliseconds: 0.3}

    Examples:

        prerank tune tune.yaml

        prerank tune tune.yaml --resume --set trials=50

        prerank train --config runs/prerank-tune/best.yaml
    """
    from prerank.config import ConfigError
    from prerank.training import Quiet, console_progress
    from prerank.tuning import load
    from prerank.tuning import tune as start

    if resume and overwrite:
        raise ConfigError("tune: --resume continues a search and --overwrite discards it; give one of them")
    telling = Telling(quiet)
    tuned = start(load(search, set_ or []), resume=resume, overwrite=overwrite, say=telling.say,
                  progress=Quiet if quiet else console_progress, preparing=telling.preparing)  # fmt: skip
    drawn = ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in tuned.best.items())
    typer.echo(f"{tuned.folder}: best of {len(tuned.trials)} trials {tuned.value:.4f} on validation: {drawn}")
    typer.echo(f"next: prerank train --config {tuned.config}")
