"""`prerank consistency`: does a pre-ranker agree with the ranking model, and is that good enough to pass?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

BROKEN = 1  # exit status: a threshold does not hold
RANKING = "the ranking model: a column (default teacher_score); with --run a run's or ensemble's folder (default: data.teacher)"


def consistency(
    scored: Annotated[Path | None, typer.Argument(help="Parquet or CSV file of scored requests, one row a candidate")] = None,
    run: Annotated[Path | None, typer.Option("--run", help="instead of a file: run folder of the pre-ranker")] = None,
    ranking: Annotated[str | None, typer.Option("--ranking", help=RANKING)] = None,
    against: Annotated[str | None, typer.Option("--against", help="a second pre-ranker: a column, or with --run a run folder")] = None,
    score: Annotated[str, typer.Option("--score", help="column of the pre-ranker's scores")] = "score",
    request: Annotated[str, typer.Option("--request", help="column that names the request")] = "request_id",
    item: Annotated[str | None, typer.Option("--item", help="column of the item: for duplicates, head and tail")] = None,
    stage: Annotated[str | None, typer.Option("--stage", help="column of the stage: impression, ranking, ... or 0 to 4")] = None,
    bid: Annotated[str | None, typer.Option("--bid", help="column of bids, for eCPM")] = None,
    truth: Annotated[str | None, typer.Option("--truth", help="column of what a candidate is worth; with --run a label")] = None,
    user_events: Annotated[str | None, typer.Option("--user-events", help="column: train events of the user (cold: 3 at most)")] = None,
    item_events: Annotated[str | None, typer.Option("--item-events", help="column: train events of the item (cold, head and tail)")] = None,
    logits: Annotated[str, typer.Option("--logits", help="which scores are logits: none, score, ranking, both")] = "none",
    split: Annotated[str, typer.Option("--split", help="with --run: test, validation or train")] = "test",
    label: Annotated[str | None, typer.Option("--label", help="with --run: whose logits are compared; default: the first label")] = None,
    requests: Annotated[int | None, typer.Option("--requests", min=1, help="with --run: so many requests, by lot; default: all")] = None,
    at: Annotated[list[int] | None, typer.Option("--at", help="a K; may stand several times. Default: 10 and 100")] = None,
    keep: Annotated[int | None, typer.Option("--keep", help="candidates that the pre-ranker keeps; default: the largest K")] = None,
    show: Annotated[int | None, typer.Option("--show", help="candidates that the ranking model shows; default: the smallest K")] = None,
    rbo_p: Annotated[float, typer.Option("--rbo-p", help="how far down RBO looks: 1 / (1 - p) places on average")] = 0.9,
    resamples: Annotated[int, typer.Option("--resamples", help="of the bootstrap over requests")] = 1000,
    level: Annotated[float, typer.Option("--level", help="of the intervals")] = 0.95,
    seed: Annotated[int, typer.Option("--seed", help="of the bootstrap")] = 0,
    thresholds: Annotated[Path | None, typer.Option("--thresholds", help="YAML file of bounds: below one, exit status 1")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="folder for consistency.json, .md, .html; default: the run's, if any")] = None,
    json_: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
) -> None:
    """Measure how well a pre-ranker agrees with the ranking model, request by request, with intervals; fail below thresholds.

    Exit status: 0 measured, and every threshold holds; 1 a threshold does not hold, one line for each; 2 something to mend.

    Thresholds are a YAML file:

        metrics: {overlap@100: {min: 0.6}, regret@100: {max: 0.02, sure: true}}

        slices: {cold items: {overlap@100: {min: 0.5}}}

        difference: {overlap@100: {min: -0.002, sure: true}}

    Examples:

        prerank consistency scored.parquet --score pre_score --ranking rank_score --out report

        prerank consistency scored.parquet --score new --against old --stage stage --thresholds gate.yaml

        prerank consistency --run runs/ranktower --ranking runs/teacher --against runs/dssm --at 20 --at 100
    """
    from rich.console import Console

    from prerank.cli.verbs import complain
    from prerank.config import ConfigError, nearest
    from prerank.consistency import Columns, Settings, broken, check, load, read, report
    from prerank.consistency.page import metrics, slices, write

    if (scored is None) == (run is None):
        raise ConfigError("consistency: give a file of scored requests or --run, one of the two")
    kinds: tuple[Literal["none", "score", "ranking", "both"], ...] = ("none", "score", "ranking", "both")
    kind = next((k for k in kinds if k == logits), None)
    if kind is None:
        raise ConfigError(f"--logits: unknown '{logits}'{nearest(logits, kinds)}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be made is told of before anything is computed
    settings = Settings(tuple(at or (10, 100)), keep, show, rbo_p, resamples, level, seed)
    bounds = load(thresholds) if thresholds else None
    if scored is not None:
        _only(split=split != "test", label=label, requests=requests)
        if against == score:
            raise ConfigError(f"--against: is --score itself, '{score}'")
        columns = Columns(request, score, ranking or "teacher_score", against, item, stage, bid, truth, user_events, item_events)
        given = read(scored, columns, logits=kind)
    else:
        from prerank.consistency.runs import score_runs

        assert run is not None
        _only(score=score != "score", request=request != "request_id", item=item, stage=stage, bid=bid, user_events=user_events,
              item_events=item_events)  # fmt: skip
        given = score_runs(run, ranking, against, split=split, label=label, truth=truth, teacher_is_logit=kind in ("ranking", "both"),
                           requests=requests, seed=seed)  # fmt: skip
    record = report(given, settings)
    if bounds is not None:
        record["thresholds"] = check(bounds, record, str(thresholds))
    written = write(record, folder) if (folder := out or run) else []
    if json_:
        import json

        typer.echo(json.dumps(record))
    else:
        console = Console() if sys.stdout.isatty() else Console(width=200)
        for table in (metrics(record, words=False), *slices(record)):
            console.print(table.rich())
    for line in record["said"]:
        complain(line, level="note")
    if written and not json_:
        typer.echo(f"written: {', '.join(map(str, written))}")
    failed = broken(record.get("thresholds", []))
    for line in failed:
        complain(line, level="broken")
    if failed:
        raise typer.Exit(BROKEN)


def _only(**given: object) -> None:
    """Raises ConfigError for options that say nothing here: a run knows its columns, a file has no splits."""
    from prerank.config import ConfigError

    for name, value in given.items():
        if value:
            of_runs = name in ("split", "label", "requests")
            what = "belongs to runs (--run), not to a file" if of_runs else "belongs to a file; a run's data says it itself"
            raise ConfigError(f"--{name.replace('_', '-')}: {what}")
