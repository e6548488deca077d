"""`prerank replay`: a log in the order of time; each row is predicted, scored, and then learned from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def replay(
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML file of the run; its split is by time")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="override one setting: --set data.label_delay=30m")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="so many runs, from the config's seed on, each in a folder of its own")] = 1,
    window: Annotated[int, typer.Option(min=2, help="rows of a sliding window")] = 20_000,
    refuse_unsorted: Annotated[
        bool, typer.Option("--refuse-unsorted", help="a log whose time runs backwards is an error; else sorted")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="continue a stopped or killed run, exactly where it stood")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what is in the output folder")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress, only the result")] = False,
) -> None:
    """Run a log through a model in the order of time: predict, score, learn, observe.

    Two protocols, side by side: prequential goes on learning through the test rows, frozen stops where they begin.

    Examples:

        prerank replay --config configs/kuairand/replay-strong.yaml

        prerank replay -c my.yaml --set data.label_delay=30m --set output=runs/late

        prerank replay -c my.yaml --seeds 5 --window 50000
    """
    from prerank.config import ConfigError, load
    from prerank.replay import replay as start
    from prerank.replay import summary
    from prerank.training import Quiet, console_progress
    from prerank.training.checkpoint import write_text

    if resume and overwrite:
        raise ConfigError("replay: --resume continues a run and --overwrite discards it; give one of them")
    settings = load(config, set_ or [])
    if settings.leaky:
        Console(stderr=True).print(f"[yellow]LEAKY protocol:[/] {settings.leaky}", highlight=False)
    runs = []
    for n in range(seeds):
        seed = settings.training.seed + n
        training = settings.training.model_copy(update={"seed": seed})
        folder = settings.output if seeds == 1 else f"{settings.output}/seed-{seed}"
        run = settings.model_copy(update={"training": training, "output": folder})
        runs.append(start(run, resume=resume, overwrite=overwrite, sort=not refuse_unsorted, window=window,
                          progress=Quiet() if quiet else console_progress()))  # fmt: skip
    found = summary(runs)
    if seeds > 1:
        write_text(Path(settings.output) / "seeds.json", json.dumps({"seeds": seeds, "metrics": found}, indent=1))
    typer.echo(f"{settings.output}: {len(runs[0].order.rows) - runs[0].order.test:,} test rows, "
               f"{sum(r.seconds for r in runs):.1f} s, {sum(r.cpu_seconds for r in runs):.1f} CPU seconds")  # fmt: skip
    for protocol in ("prequential", "frozen"):
        for label, metrics in found[protocol].items():
            numbers = "  ".join(f"{m} {mean:.4f}" + (f" ± {std:.4f}" if seeds > 1 else "") for m, (mean, std) in metrics.items())
            typer.echo(f"{protocol:12} {label:12} {numbers}")
