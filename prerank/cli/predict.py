"""`prerank predict`: a Parquet file of pairs in, the same file with probabilities out, in bounded memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from torch import nn

    from prerank.cli.pairs import Pairs
    from prerank.config import Config
    from prerank.data import Dataset

Advance = Callable[[int], None]  # rows done


def predict(
    run: Annotated[Path, typer.Argument(help="run folder that `prerank train` wrote, or an ensemble's")],
    input_: Annotated[Path, typer.Argument(metavar="INPUT.parquet", help="rows with a user id and an item id, and any features")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT.parquet", help="the same rows with a column p_LABEL for each label")],
    prefix: Annotated[str, typer.Option(help="what the new columns' names begin with, before the label")] = "p_",
    batch_rows: Annotated[int, typer.Option(min=1, help="rows held in memory at a time")] = 65_536,
    force: Annotated[bool, typer.Option("--force", help="replace an existing output")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress, only the result")] = False,
) -> None:
    """Score every row of a Parquet file with a trained run, or with an ensemble of them.

    Features that the file has are read from it; the others come from what the run knows of the user and the item.

    Examples:

        prerank predict runs/prerank pairs.parquet scored.parquet

        prerank predict runs/teacher.runs/ensemble candidates.parquet scored.parquet --prefix teacher_score_
    """
    from prerank.cli.pairs import Pairs
    from prerank.cli.verbs import complain
    from prerank.config import ConfigError

    if output.exists() and not force:
        raise ConfigError(f"output '{output}': exists already; --force replaces it")
    if not output.parent.is_dir():
        raise ConfigError(f"output '{output}': folder '{output.parent}' does not exist")
    with _parquet(input_) as source:
        model, dataset, config = _open(run)
        pairs = Pairs(dataset, config.data, source.schema_arrow.names)
        for feature in pairs.missing():
            complain(f"feature '{feature}': the input has no such column; scored as missing", level="warning")
        start = time.perf_counter()
        with _progress(source.metadata.num_rows, quiet) as advance:
            score(model, config, pairs, source, output, prefix, batch_rows, advance)
    seconds, rows = time.perf_counter() - start, source.metadata.num_rows
    unknown = ", ".join(f"{n:,} with an unknown {side}" for side, n in pairs.unknown.items() if n)
    typer.echo(f"{output}: {rows:,} rows{f' ({unknown})' if unknown else ''} in {seconds:.1f} s, {rows / max(seconds, 1e-9):,.0f} rows/s")


def _open(folder: Path) -> tuple[nn.Module, Dataset, Config]:
    """The model of a run, or of an ensemble, with its data; of an ensemble's config it is the first member's."""
    from prerank.ensembles import members, open_ensemble
    from prerank.run import open_run

    if not (folder / "ensemble.json").exists():
        opened = open_run(folder)
        return opened.model, opened.dataset, opened.config
    model, dataset = open_ensemble(folder)
    return model, dataset, open_run(members(folder)[0]).config


def score(model: nn.Module, config: Config, pairs: Pairs, source: Any, output: Path, prefix: str, batch_rows: int,
          advance: Advance) -> None:  # fmt: skip
    """Write `source` (a pyarrow ParquetFile) with a column PREFIX + LABEL (float32) for each label; the output appears whole or not at all.

    Raises DataError for a value that cannot be read, naming its row, and for a column of that name that is there already.
    """
    import polars as pl
    import pyarrow as pa
    import pyarrow.parquet as pq

    from prerank.data import DataError
    from prerank.data.errors import writing
    from prerank.metrics import sigmoid
    from prerank.training import predict as predict_batches
    from prerank.training.device import device_of

    names = [f"{prefix}{objective}" for objective in pairs.dataset.schema.objectives]
    taken = [n for n in names if n in source.schema_arrow.names]
    if taken:
        raise DataError(f"input: has a column '{taken[0]}' already, where the probability would go")
    schema = source.schema_arrow
    for name in names:
        schema = schema.append(pa.field(name, pa.float32()))
    device = device_of(config.training)
    model.to(device)
    temporary, first = output.with_name(f".{output.name}.{os.getpid()}.tmp"), 0
    try:
        with writing(output), pq.ParquetWriter(temporary, schema) as writer:
            for part in source.iter_batches(batch_rows):
                frame = pl.DataFrame(pa.Table.from_batches([part.select(pairs.needed())]))
                batch = pairs.batch(frame, partial(_place, first))
                logits, _ = predict_batches(model, [batch], device)
                columns = [pa.array(sigmoid(logits[:, t]), pa.float32()) for t in range(len(names))]
                writer.write_batch(pa.RecordBatch.from_arrays([*part.columns, *columns], schema=schema))
                first += part.num_rows
                advance(part.num_rows)
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)


def _place(first: int, position: int) -> str:
    return f"row {first + position + 1} of the input"


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    """The opened file. Raises DataError when it is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from prerank.data import DataError

    if not path.is_file():
        raise DataError(f"input '{path}': no such file")
    try:
        source = pq.ParquetFile(path)
    except pa.ArrowException:
        raise DataError(f"input '{path}': is not a whole Parquet file") from None
    with source:
        yield source


@contextmanager
def _progress(rows: int, quiet: bool) -> Iterator[Advance]:
    """A bar with rate and time left on a terminal, silence elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0:,.0f} rows/s")

    console = Console(stderr=True)
    columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=rows)
        yield lambda n: progress.advance(task, n)
