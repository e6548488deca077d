"""`prerank candidates`: what an earlier stage would have handed on, for a log that holds impressions alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console


def candidates(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file of the retriever, a two-tower; it is trained first", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="Parquet file that is written: user, item, stage (recall), retrieval_score")] = Path(
        "candidates.parquet"
    ),
    count: Annotated[int, typer.Option(min=1, help="candidates of a user or request")] = 100,
    random: Annotated[int, typer.Option(min=0, help="beside them so many drawn items, of stage random")] = 0,
    by: Annotated[
        Literal["user", "request"], typer.Option(help="user: a list a user; request: a list a request, with its context and time")
    ] = "user",
    remove: Annotated[
        Literal["all", "train"], typer.Option(help="all: items that the user was shown in any split; train: only those of train")
    ] = "all",
    run: Annotated[Path | None, typer.Option(help="folder of a trained run to retrieve with, instead of a config")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="override one setting of the config: --set training.epochs=3")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue the retriever's training where it stopped")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the file, and train the retriever again")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress, only the result")] = False,
) -> None:
    """Retrieve candidates for every user of a log, without the items that it knows: hard negatives of a pre-ranker.

    The file is appended to the log by `data: {candidates: FILE.parquet}`.

    Examples:

        prerank candidates configs/ml1m/retrieval.yaml --out runs/cascade/candidates.parquet --count 100

        prerank candidates --run runs/ml1m-retrieval --out runs/cascade/candidates.parquet --count 200
    """
    from prerank.build import check_model
    from prerank.config import ConfigError, load
    from prerank.datasets import resolve
    from prerank.retrieval import check_retriever, retrieve
    from prerank.run import open_run
    from prerank.run import train as start
    from prerank.training import Quiet, console_progress

    if (config is None) == (run is None):
        raise ConfigError("candidates: give a config, whose model is trained, or --run, a folder of one that is; not both")
    if out.suffix.lower() not in (".parquet", ".pq"):
        raise ConfigError(f"out '{out}': must be a Parquet file")
    if out.exists() and not (overwrite or resume):
        raise ConfigError(f"out '{out}': exists already; --overwrite replaces it")
    out.parent.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    if config is not None:
        settings = load(config, set_ or [])
        check_retriever(check_model(settings.model, resolve(settings.data).schema_()), settings.model.name)
        opened, result = start(settings, resume=resume, overwrite=overwrite, progress=Quiet() if quiet else console_progress())
        opened.model.eval()
        typer.echo(f"{opened.folder}: retriever trained, best epoch {result.best_epoch} of {len(result.history)}")
    else:
        opened = open_run(run)
    with console.status("retrieving") as status:

        def progress(done: int, total: int) -> None:
            if not quiet:
                status.update(f"retrieving: {done:,} of {total:,}")

        made = retrieve(opened, out, count=count, drawn=random, by=by, remove=remove, progress=progress)
    fewer = f", {made.short:,} of them with fewer than {count}" if made.short else ""
    typer.echo(f"{made.out}: {made.rows:,} candidates of {made.lists:,} {by}s{fewer}")
    if made.measured:
        typer.echo(f"recall@{count} of {made.measured:,} users' validation positives among all items but those of train: {made.recall:.4f}")
