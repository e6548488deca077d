"""`prerank abtest`: what each arm of an experiment did, and whether the difference is more than chance."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

SUSPECT = 1  # exit status: users were not dealt as configured


def abtest(
    rows: Annotated[str, typer.Argument(help="Parquet or CSV file of impressions, or the log that label waiting writes: sqlite:///rows.db")],
    control: Annotated[str, typer.Option(help="arm that the others are compared with")],
    rate: Annotated[list[str] | None, typer.Option(help="column of 0 and 1; again for more: --rate click --rate purchase")] = None,
    value: Annotated[list[str] | None, typer.Option(help="column of amounts, told per 1,000 rows as eCPM is; again for more")] = None,
    arm: Annotated[str, typer.Option(help="column of the arm")] = "arm",
    user: Annotated[
        str | None, typer.Option(help="column of the user, the unit that was dealt to an arm; default: user_id, a log's user")
    ] = None,
    latency: Annotated[str | None, typer.Option(help="column of the request's milliseconds; default: a log's latency")] = None,
    request: Annotated[str | None, typer.Option(help="column of the request: its latency counts once; default: a log's request")] = None,
    time: Annotated[
        str | None, typer.Option(help="column of the time, ms or a date: adds the picture over time; default: a log's ts")
    ] = None,
    experiment: Annotated[str | None, typer.Option(help="only rows of this experiment; a log of several needs it")] = None,
    experiment_column: Annotated[str, typer.Option(help="column of the experiment's name")] = "experiment",
    share: Annotated[
        list[str] | None, typer.Option(help="users an arm should get: --share control=0.9 --share new=0.1; default: equal")
    ] = None,
    level: Annotated[float, typer.Option(min=0.5, max=0.9999, help="of the intervals")] = 0.95,
    out: Annotated[Path | None, typer.Option(help="folder for abtest.json, .md, .html")] = None,
    json_: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
) -> None:
    """Compare the arms of an A/B test: rates, values and latency, with intervals over users, p-values and a sample-ratio check.

    A log's columns are arm, user, request, ts, score, bid, latency, the kinds of feedback, and these times the bid (click*bid).
    Exit status 1 when users were not dealt to the arms as configured.

    Examples:

        prerank abtest sqlite:///rows.db --control backbone --rate click --value 'click*bid' --out report

        prerank abtest rows.parquet --control backbone --rate click --value revenue --out report

        prerank abtest rows.parquet --control backbone --rate click --time ts --latency milliseconds --request request_id

        prerank abtest rows.parquet --control old --share old=0.9 --share new=0.1 --rate click --json
    """
    import json

    from rich.console import Console

    from prerank.cli.verbs import complain
    from prerank.config import ConfigError
    from prerank.experiments import Columns, Settings, compare, read
    from prerank.experiments.page import tables, verdict, write
    from prerank.experiments.rows import is_log

    if not rate and not value:
        raise ConfigError("abtest: give at least one --rate or --value to compare")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be made is told of before anything is computed
    if is_log(rows):
        user, latency, request, time = user or "user", latency or "latency", request or "request", time or "ts"
    columns = Columns(arm, user or "user_id", tuple(rate or ()), tuple(value or ()), latency, request, time,
                      experiment_column if experiment else None, experiment)  # fmt: skip
    record = compare(read(rows, columns), Settings(control, _shares(share or []), level))
    written = write(record, out) if out else []
    if json_:
        typer.echo(json.dumps(record))
    else:
        console = Console() if sys.stdout.isatty() else Console(width=160)
        typer.echo(verdict(record))
        for table in tables(record):
            console.print(table.rich())
    for line in record["said"]:
        complain(line, level="note")
    if written and not json_:
        typer.echo(f"written: {', '.join(map(str, written))}")
    if record["sample_ratio"]["suspect"]:
        complain(verdict(record), level="broken")
        raise typer.Exit(SUSPECT)


def _shares(given: list[str]) -> dict[str, float]:
    from prerank.config import ConfigError

    found = {}
    for one in given:
        name, _, number = one.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError:
            found[name] = -1.0
        if not name or not found[name] > 0:
            raise ConfigError(f"--share: must be ARM=NUMBER above 0; got '{one}'")
    return found
