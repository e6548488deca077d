"""`prerank leaderboard`: models x seeds, compared honestly, in one command that can be killed at any point."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def leaderboard(
    config: Annotated[Path, typer.Argument(help="leaderboard file, e.g. configs/leaderboards/ml1m-honest.yaml")],
    only: Annotated[str, typer.Option("--only", help="train only rows whose label or config contains this")] = "",
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, help="trainings a row; default: the file's")] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="trainings at a time, one thread each")] = 1,
    out: Annotated[Path | None, typer.Option("--out", help="JSON to write; default: results/leaderboard-NAME.json")] = None,
    runs: Annotated[Path, typer.Option("--runs", help="folder of the run folders; what is finished there is not repeated")] = Path(
        "runs/leaderboard"
    ),
    latency: Annotated[str, typer.Option("--latency", help="measure scoring: new (when trainings changed), again, no")] = "new",
    train: Annotated[bool, typer.Option("--train/--no-train", help="without: only write what is trained")] = True,
) -> None:
    """Train every row of a leaderboard over its seeds, measure and compare them; write JSON and Markdown.

    Killed at any point, the same command continues: finished trainings stand, begun ones go on from their checkpoint.

    Examples:

        prerank leaderboard configs/leaderboards/ml1m-honest.yaml --seeds 3 --jobs 2

        prerank leaderboard configs/leaderboards/ml1m-honest.yaml --only mf --seeds 1
    """
    from rich.console import Console

    from prerank.config import ConfigError, nearest
    from prerank.leaderboard import leaderboard as play
    from prerank.leaderboard.tables import cost, quality

    ways = ("new", "again", "no")
    if latency not in ways:
        raise ConfigError(f"--latency: unknown '{latency}'{nearest(latency, ways)}")
    record = play(config, only=only, seeds=seeds, jobs=jobs, out=out, runs=runs, train=train, measure=latency != "no",
                  again=latency == "again")  # fmt: skip
    console = Console() if sys.stdout.isatty() else Console(width=200)
    for table in (*(quality(record, objective) for objective in record["objectives"]), cost(record)):
        console.print(table.rich())
    for row in record["rows"]:
        for why in row["why"]:
            console.print(f"{row['label']}: {row['status']}: {why}", highlight=False, markup=False)
    written = out or Path("results") / f"leaderboard-{record['leaderboard']}.json"
    typer.echo(f"written: {written} and {written.with_suffix('.md')}")
