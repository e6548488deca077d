"""`prerank data`: fetch, list and look at the data sets the house knows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(help="Fetch and list the data sets the house knows.", no_args_is_help=True, add_completion=False)
LOOKED_AT = 1_000_000  # rows that `show` describes: a log may hold a hundred times as many
From = Annotated[Path | None, typer.Option("--from", help="folder that holds the official files already", show_default=False)]


@app.command("get")
def get(
    name: Annotated[str, typer.Argument(help="a data set of `prerank data list`")],
    source: From = None,
    to: Annotated[Path | None, typer.Option("--to", help="data folder to put it in; default: the cache folder")] = None,
) -> None:
    """Download a data set's official archive (goes on where it was interrupted), or copy its files from a folder.

    Examples:

        prerank data get movielens

        prerank data get kuairand --from ~/Downloads/KuaiRand-Pure/data
    """
    from prerank import datasets

    recipe = datasets.recipe(name)
    if not recipe.files:
        typer.echo(f"{name}: generated when it is used, there is nothing to get")
        return
    typer.echo(f"{recipe.title}: {recipe.licence}. Please cite {recipe.citation}.", err=True)
    with _bar() as bar:
        task = bar.add_task(recipe.title, total=None, visible=False)
        destination = None if to is None else to / recipe.folders[0]

        def progress(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        folder = datasets.get(name, source=source, destination=destination, progress=progress)
    typer.echo(f"{folder}")
    if to is not None:
        typer.echo(f"to be found there: export PRERANK_DATA={to.resolve()}")


@app.command("list")
def list_() -> None:
    """Which data sets there are, and where they were found."""
    from prerank.datasets import RECIPES

    table = Table("name", "data set", "found", "log rows", "licence", box=None, pad_edge=False)
    for name, recipe in RECIPES.items():
        found = recipe.locate({})
        where = "generated" if not recipe.files else "not found: prerank data get " + name if found is None else str(found)
        table.add_row(name, recipe.title, where, recipe.rows, recipe.licence)
    _console().print(table)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="a data set of `prerank data list`")],
    source: From = None,
    rows: Annotated[int, typer.Option("--rows", "-n", min=0, help="first rows to print")] = 3,
    set_: Annotated[list[str] | None, typer.Option("--set", help="a recipe's option: --set seed=3")] = None,
) -> None:
    """A data set's tables: columns, types, rows, how much is missing, first rows; and the settings its recipe fills in."""
    import polars as pl

    from prerank import datasets
    from prerank.config import Data

    data = Data(recipe=name, options=_options(set_ or [], source))
    folder = datasets.converted(data)
    resolved = datasets.resolve(data)
    console = _console()
    for table in ("log", "users", "items"):
        if not (folder / f"{table}.parquet").is_file():
            continue  # not every data set has one
        frame = pl.read_parquet(folder / f"{table}.parquet", n_rows=LOOKED_AT)
        total = int(pl.scan_parquet(folder / f"{table}.parquet").select(pl.len()).collect().item())
        title = f"{table}: {total:,} rows" + (f", of the first {LOOKED_AT:,}:" if total > LOOKED_AT else "")
        console.print(_described(frame, title, rows))
    for key, value in datasets.notes(folder).items():
        console.print(f"{key}: {value}", highlight=False, soft_wrap=True)
    features = ", ".join(f"{f.name} ({f.side} {f.kind})" for f in resolved.features)
    console.print(f"features: {features}", highlight=False, soft_wrap=True)
    console.print(f"labels: {', '.join(resolved.labels)}; split: {resolved.split.model_dump(exclude_unset=True)}", highlight=False)


def _options(pairs: list[str], source: Path | None) -> dict[str, Any]:
    import yaml

    from prerank.config import ConfigError

    options: dict[str, Any] = {} if source is None else {"from": str(source)}
    for pair in pairs:
        key, sep, text = pair.partition("=")
        if not sep:
            raise ConfigError(f"--set '{pair}': must look like option=value")
        try:
            options[key] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"--set '{pair}': the value is not valid YAML") from None
    return options


def _described(frame: Any, title: str, rows: int) -> Table:
    """One line a column, so that wide tables fit a terminal."""
    numbered = (f"row {i + 1}" for i in range(min(rows, frame.height)))
    table = Table("column", "type", "distinct", "missing", *numbered, title=title, title_justify="left", box=None, pad_edge=False)
    for name in frame.columns:
        column = frame[name]
        first = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in column.head(rows).to_list()]
        table.add_row(name, str(column.dtype), f"{column.n_unique():,}", f"{column.null_count():,}", *first)
    return table


def _console() -> Console:
    """A terminal's width when there is one; wide enough for whole lines when the output goes to a file or a pipe."""
    return Console() if sys.stdout.isatty() else Console(width=200)


def _bar() -> Any:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))
