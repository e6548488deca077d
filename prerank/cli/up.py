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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the system that the folder holds")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress, only the report")] = False,
) -> None:
    """Start a server, an event log, label waiting and a trainer, and let simulated users live with them.

    The world's tastes drift. What learning online is worth is told as true click probability: of what is shown, of what the first model,
    frozen, would have shown, and of the best and of a blind choice.

    Examples:

        prerank up --minutes 5

        prerank up --minutes 2 --rate 20 --drift 0.5 --to /tmp/up --overwrite
    """
    from rich.console import Console

    from prerank.online.report import pictures, table
    from prerank.online.up import up as start

    telling = Telling(quiet)

    def told(interval: dict[str, Any]) -> None:
        trainer = interval.get("trainer", {})
        delay = trainer.get("update_delay")
        telling.say(f"{interval['at']:6.0f} s  shown: online {interval.get('online', 0):.3f}  frozen {interval.get('frozen', 0):.3f}  "
                    f"best {interval.get('best', 0):.3f}  generation {interval['generation']}  learned {trainer.get('rows', 0):,} rows"
                    + ("" if delay is None else f"  fresh after {delay:.1f} s") + f"  p50 {interval['p50_ms']:.1f} ms")  # fmt: skip

    report = start(to, minutes=minutes, rate=rate, drift=drift, seed=seed, overwrite=overwrite, say=telling.say, told=told)
    Console().print(table(report).rich())
    typer.echo(f"written: {to / 'report.json'}, {', '.join(str(p) for p in pictures(report, to))}")
