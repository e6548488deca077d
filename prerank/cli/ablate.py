"""`prerank ablate`: what each part of CS3 adds to a backbone, over seeds, in one command that can be killed at any point."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def ablate(
    config: Annotated[Path, typer.Argument(help="ablation file, e.g. configs/ablations/cs3-kuairand.yaml")],
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, help="runs a variant; default: the file's")] = None,
    only: Annotated[str, typer.Option("--only", help="run only cells that contain this: 'DSSM, cas'")] = "",
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="runs at a time, one thread each")] = 1,
    out: Annotated[Path | None, typer.Option("--out", help="JSON to write; default: results/ablation-NAME.json")] = None,
    runs: Annotated[Path, typer.Option("--runs", help="folder of the run folders; what is finished there is not repeated")] = Path(
        "runs/ablation"
    ),
    latency: Annotated[bool, typer.Option("--latency/--no-latency", help="measure what scoring costs, where runs are new")] = True,
    replay: Annotated[bool, typer.Option("--replay/--no-replay", help="without: only write what was run")] = True,
) -> None:
    """Replay backbones with every subset of CAS, CTS and CMS, compare them in pairs; write JSON, Markdown and pictures.

    Killed at any point, the same command continues: finished runs stand, begun ones go on from their checkpoint.

    Examples:

        prerank ablate configs/ablations/cs3-kuairand.yaml --seeds 5

        prerank ablate configs/ablations/cs3-kuairand.yaml --only "DSSM, cms" --seeds 1
    """
    from rich.console import Console

    from prerank.ablation import ablate as play
    from prerank.ablation.tables import backbones, cost, quality

    record = play(config, only=only, seeds=seeds, jobs=jobs, out=out, runs=runs, replay=replay, measure=latency)
    console = Console() if sys.stdout.isatty() else Console(width=200)
    for backbone in backbones(record):
        console.print(quality(record, backbone, record["objectives"][0]).rich())
    console.print(cost(record).rich())
    for row in record["rows"]:
        for why in row["why"]:
            console.print(f"{row['backbone']}, {row['variant']}: {why}", highlight=False, markup=False)
    written = out or Path("results") / f"ablation-{record['ablation']}.json"
    typer.echo(f"written: {written} and {written.with_suffix('.md')}")
