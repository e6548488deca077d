"""`prerank online`: learn from a stream of rows, for as long as it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from prerank.cli.telling import Telling

if TYPE_CHECKING:
    from prerank.online import Told


def online(
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML file of the run, with a section `online`")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="override one setting: --set online.rows=sqlite:///rows.db")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the folder's checkpoint; none: begin")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what is in the output folder")] = False,
    role: Annotated[
        Literal["two-tower", "ranking"], typer.Option("--role", help="ranking: the ranking model of CMS, where online.ranking is apart")
    ] = "two-tower",
    lockstep: Annotated[bool, typer.Option("--lockstep", help="full batches only: equal rows give equal weights, bit for bit")] = False,
    until_empty: Annotated[bool, typer.Option("--until-empty", help="stop when no rows are left")] = False,
    metrics_port: Annotated[int | None, typer.Option(min=0, max=65535, help="tell Prometheus at this port; 0: any that is free")] = None,
    metrics_host: Annotated[str, typer.Option(help="address for it; 0.0.0.0 for all")] = "127.0.0.1",
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="event files for TensorBoard, in OUTPUT/tensorboard")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress, only the result")] = False,
) -> None:
    """Learn from a stream: predict, score, learn, observe; publish generations that servers follow.

    Rows come from label waiting (`prerank events wait`). Stopped or killed, --resume goes on where the last checkpoint stands: no row is
    learned twice, none is left out.

    Examples:

        prerank online --config online.yaml --resume

        prerank online -c online.yaml --set online.publish.folder=generations --metrics-port 9100

        prerank online -c online.yaml --role ranking --resume

        prerank online -c online.yaml --lockstep --until-empty

        torchrun --nproc-per-node 2 -m prerank online -c online.yaml --resume      a process for each part of the log's partitions
    """
    from prerank.config import ConfigError, load
    from prerank.online import train_online
    from prerank.online.tensorboard import TensorBoard
    from prerank.online.view import live, of_trainer
    from prerank.training.together import launched

    if resume and overwrite:
        raise ConfigError("online: --resume continues a run and --overwrite discards it; give one of them")
    first = not launched()[0]  # of several processes one speaks
    quiet = quiet or not first
    telling = Telling(quiet)
    settings = load(config, set_ or [])
    listeners: list[Callable[[Told], None]] = []
    if metrics_port is not None and first:
        from prerank.online.measures import Measures

        measures = Measures()
        telling.say(f"metrics: {measures.serve(metrics_port, metrics_host)}")
        listeners.append(measures.tell)
    if tensorboard and first:
        listeners.append(TensorBoard(Path(settings.output, "ranking" if role == "ranking" else "", "tensorboard")).tell)

    with live(telling.console, "prerank online", quiet=quiet) as show:
        listeners.append(lambda state: show(of_trainer(state)))

        def told(state: Told) -> None:
            for listener in listeners:
                listener(state)

        found = train_online(settings, role=role, resume=resume, overwrite=overwrite, lockstep=lockstep, until_empty=until_empty,
                             say=telling.say, told=told)  # fmt: skip
    if not first:
        return
    typer.echo(f"{settings.output}: {found.rows:,} rows in {found.batches:,} batches, {found.skipped:,} skipped")
    for label, numbers in (found.metrics or {}).items():
        typer.echo(f"{label:12} " + "  ".join(f"{name} {value:.4f}" for name, value in numbers.items()))
