"""`prerank events`: logs of events, seen and filled from the command line, and label waiting as a process."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

app = typer.Typer(help="Event logs: fill one from Parquet, look into one, make training rows of one.", no_args_is_help=True,
                  add_completion=False)  # fmt: skip
Url = Annotated[str, typer.Argument(help="sqlite:///events.db, redis://host:6379/0?log=events, kafka://host:9092/topic", metavar="LOG")]
TELL = 10.0  # seconds between lines about how it goes
MEASURE = 1.0  # seconds between two looks for Prometheus


@app.command("replay")
def replay(
    parquet: Annotated[Path, typer.Argument(help="one row an impression, with columns of what came of it")],
    to: Annotated[str, typer.Option("--to", help="log: sqlite:///.., redis://.., kafka://..")],
    speed: Annotated[str, typer.Option(help="60x: an hour in a minute; max: as fast as it goes")] = "max",
    feedback: Annotated[
        list[str] | None,
        typer.Option(help="KIND=COLUMN, happened where above 0; KIND=COLUMN@30s or @COLUMN_OF_MS: so long after the impression"),
    ] = None,
    user: Annotated[str, typer.Option(help="column")] = "user_id",
    item: Annotated[str, typer.Option(help="column")] = "item_id",
    time_: Annotated[str, typer.Option("--time", help="column: integers of ms, or dates")] = "ts",
    request: Annotated[str | None, typer.Option(help="column; default: each row is a request of its own")] = None,
    feature: Annotated[list[str] | None, typer.Option(help="columns that are logged as features; default: all others")] = None,
    stamp: Annotated[Literal["event", "now"], typer.Option(help="times as they were, or as if it happened now")] = "event",
    close: Annotated[str | None, typer.Option(help="after the last row, say that so much time went by: 1h closes the windows")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="only the result")] = False,
) -> None:
    """Send a Parquet log as events, in order of time, at a chosen speed.

    Examples:

        prerank events replay log.parquet --to sqlite:///events.db --speed 60x --feedback click=is_click@5s

        prerank events replay log.parquet --to redis://localhost:6379/0?log=events --feedback click=is_click --close 1h
    """
    from prerank.stream import Client
    from prerank.stream.replay import Columns
    from prerank.stream.replay import replay as start

    columns = Columns(user=user, item=item, time=time_, request=request, feedback=_pairs("--feedback", "click=is_click@5s", feedback or []),
                      features=None if feature is None else tuple(feature))  # fmt: skip
    began = time.monotonic()

    def told(sent: int, ts: int) -> None:
        if not quiet:
            typer.echo(f"{_moment(ts)}  {sent:,} events", err=True)

    pace, ms = _speed(speed), None if close is None else _span("--close", close)
    with Client(to) as client:
        sent = start(parquet, client, columns, speed=pace, stamp=stamp, close=ms, told=told)
    typer.echo(f"{to}: {sent:,} events in {time.monotonic() - began:.1f} s")


@app.command("tail")
def tail(
    log: Url,
    number: Annotated[int, typer.Option("--number", "-n", min=0, help="last entries of each partition")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="and those that come, until Ctrl-C")] = False,
    partition: Annotated[int | None, typer.Option(min=0, help="only this one")] = None,
) -> None:
    """Show a log's last entries, one a line: partition, offset, when it was appended, message.

    Examples:

        prerank events tail sqlite:///events.db

        prerank events tail sqlite:///dead.db --number 3 --follow
    """
    from prerank.stream import open_log

    opened = open_log(log, create=False)
    partitions = range(opened.partitions) if partition is None else (partition,)
    places = {p: max(opened.start(p), opened.end(p) - number) for p in partitions}
    try:
        while True:
            quiet = True
            for p, offset in places.items():
                for entry in opened.read(p, offset, 1000, 0.5 / len(places) if follow else 0.0):
                    text = entry.data.decode(errors="backslashreplace")
                    typer.echo(f"{p} {entry.offset} {_moment(entry.ts)} {text}")
                    places[p], quiet = entry.offset + 1, False
            if quiet and not follow:
                return
    finally:
        opened.close()


@app.command("trim")
def trim(
    log: Url,
    older: Annotated[str, typer.Option(help="entries appended longer ago go: 7d")],
    read_by: Annotated[
        list[str] | None, typer.Option(help="but none that this group has not read: two-tower:NAME for a trainer; may stand several times")
    ] = None,
) -> None:
    """Remove a log's old entries. Events are trimmed by `wait --retain`; rows and dead letters by nobody else.

    Examples:

        prerank events trim sqlite:///rows.db --older 7d --read-by two-tower:shop

        prerank events trim sqlite:///dead.db --older 30d
    """
    from prerank.stream import open_log

    span = _span("--older", older)
    opened = open_log(log, create=False)
    try:
        before = [opened.start(p) for p in range(opened.partitions)]
        for p in range(opened.partitions):
            until = _young(opened, p, time.time_ns() // 1_000_000 - span)
            opened.trim(p, before=min([until, *(opened.committed(group, p) or 0 for group in read_by or [])]))
        after = [opened.start(p) for p in range(opened.partitions)]
    finally:
        opened.close()
    typer.echo(f"{log}: {sum(after) - sum(before):,} entries trimmed")


@app.command("wait")
def wait(
    log: Url,
    to: Annotated[str, typer.Option("--to", help="log of training rows, of as many partitions")],
    state: Annotated[Path, typer.Option(help="folder that a restart goes on from")],
    kind: Annotated[list[str], typer.Option(help="KIND=WINDOW: feedback that is waited for, and how long: click=10m")],
    dead: Annotated[str | None, typer.Option(help="log of events that could not be used, with reasons; default: counted only")] = None,
    lateness: Annotated[str, typer.Option(help="how far out of order events may come")] = "1m",
    remember: Annotated[str | None, typer.Option(help="how long rows that went out are known; default: the longest window")] = None,
    skew: Annotated[str, typer.Option(help="how far clocks may differ")] = "5m",
    keep: Annotated[int, typer.Option(min=1, help="most impressions in memory")] = 1_000_000,
    early: Annotated[bool, typer.Option(help="rows go out as soon as every kind came, positives sooner than the others")] = False,
    corrections: Annotated[bool, typer.Option("--corrections", help="late feedback makes a row go out again")] = False,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="a run's YAML file: values of wrong types are refused")] = None,
    idle: Annotated[str | None, typer.Option(help="quiet for so long, time goes on by the clock; default: by events alone")] = None,
    retain: Annotated[str | None, typer.Option(help="events older than this are trimmed, once they are in the state")] = None,
    every: Annotated[float, typer.Option(min=0, help="seconds between states on disk")] = 10.0,
    group: Annotated[str, typer.Option(help="name of these joiners: they share the log's partitions")] = "labels",
    until_end: Annotated[bool, typer.Option("--until-end", help="stop when the log is read to its end")] = False,
    create: Annotated[bool, typer.Option("--create", help="make LOG where there is none, and wait for what comes; else an error")] = False,
    metrics_port: Annotated[int | None, typer.Option(min=0, max=65535, help="tell Prometheus at this port; 0: any that is free")] = None,
    metrics_host: Annotated[str, typer.Option(help="address for it; 0.0.0.0 for all")] = "127.0.0.1",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no lines about how it goes, only the result")] = False,
) -> None:
    """Label waiting: impressions wait for their feedback and become training rows.

    Runs until Ctrl-C or SIGTERM; start it again to go on.

    Examples:

        prerank events wait sqlite:///events.db --to sqlite:///rows.db --dead sqlite:///dead.db --state labels --kind click=10m --idle 2s

        prerank events wait redis://localhost/0?log=events --to redis://localhost/0?log=rows --state labels --kind click=10m --kind buy=1d
    """
    from prerank.config import checked
    from prerank.stream import Joiner, Waiting, open_log

    kinds = _pairs("--kind", "click=10m", kind)
    given = {"kinds": kinds, "lateness": lateness, "remember": remember, "skew": skew, "keep": keep, "early": early,
             "corrections": corrections}  # fmt: skip
    settings = checked(Waiting, given, "label waiting")
    pause = None if idle is None else _span("--idle", idle) / 1000
    older = None if retain is None else _span("--retain", retain)
    schema = None if config is None else _schema(config)
    logs = [_there(log, create), open_log(to), *([open_log(dead)] if dead else [])]
    joiner = Joiner(logs[0], logs[1], settings, state, dead=logs[2] if dead else None, group=group, schema=schema, every=every, idle=pause,
                    retain=older)  # fmt: skip
    measures = None
    if metrics_port is not None:
        from prerank.stream.measures import Measures, answer

        measures = Measures()
        typer.echo(f"metrics: {answer(measures.registry, metrics_port, metrics_host)}", err=True)
    stopped: list[int] = []
    before = {name: signal.signal(name, lambda number, frame: stopped.append(number)) for name in (signal.SIGTERM, signal.SIGINT)}
    tell, measured = time.monotonic() + TELL, 0.0

    def stop() -> bool:
        nonlocal tell, measured
        if measures is not None and time.monotonic() >= measured + MEASURE:
            measured = time.monotonic()
            measures.tell(joiner)
        if not quiet and time.monotonic() >= tell:
            tell = time.monotonic() + TELL
            typer.echo(_told(joiner.counts()), err=True)
        return bool(stopped) or (until_end and joiner.at_end())

    counts: dict[str, int] = {}
    try:
        joiner.run(stop, say=lambda line: typer.echo(line, err=True), last=counts.update)
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
        for opened in logs:
            opened.close()
    typer.echo(_told(counts))


def _young(log: Any, partition: int, ts: int) -> int:
    """Offset of the first entry that was appended at a time or later: times ascend, so that halving finds it."""
    low, high = log.start(partition), log.end(partition)
    while low < high:
        middle = (low + high) // 2
        entries = log.read(partition, middle, 1)
        if entries and entries[0].ts < ts:
            low = entries[0].offset + 1
        else:
            high = middle
    return int(low)


def _there(log: str, create: bool) -> Any:
    """The log of events. Raises NoLogError: a mistyped address would wait for ever."""
    from prerank.stream import open_log
    from prerank.stream.log import NoLogError

    try:
        return open_log(log, create=create)
    except NoLogError as error:
        raise NoLogError(f"{error}; whoever sends events makes it, and --create waits for one that nobody has made yet") from None


def _told(counts: dict[str, int]) -> str:
    return "  ".join(f"{name} {n:,}" for name, n in counts.items() if n) or "nothing yet"


def _pairs(option: str, example: str, texts: list[str]) -> dict[str, str]:
    from prerank.config import ConfigError

    found = {}
    for text in texts:
        key, sep, value = text.partition("=")
        if not sep or not key or not value:
            raise ConfigError(f"{option} '{text}': must look like {example}")
        found[key] = value
    return found


def _span(option: str, text: str) -> int:
    from prerank.config import ConfigError, milliseconds

    try:
        return milliseconds(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None


def _speed(text: str) -> float | None:
    from prerank.config import ConfigError

    if text == "max":
        return None
    try:
        speed = float(text.removesuffix("x"))
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise ConfigError(f"--speed: must be max, or a number above 0 and x ('60x'); got '{text}'")
    return speed


def _moment(ts: int) -> str:
    from datetime import UTC, datetime, timedelta

    return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ts):%Y-%m-%d %H:%M:%S}"


def _schema(config: Path) -> Any:
    from prerank.config import load
    from prerank.datasets import resolve

    return resolve(load(config).data).schema_()
