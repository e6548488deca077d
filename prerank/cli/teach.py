"""`prerank teach`: a ranking model's scores, and vectors, beside the columns of the log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from prerank.cli.telling import Telling


def teach(
    configs: Annotated[list[Path], typer.Argument(help="YAML files of rankers over the same log; several are weighted on validation")],
    out: Annotated[Path, typer.Option(help="Parquet file that is written: the log's columns and rows, and the teacher's")],
    folds: Annotated[int, typer.Option(min=2, help="parts of the train rows; each is scored by a model fitted without it")] = 5,
    by: Annotated[
        Literal["pair", "user"], typer.Option(help="what stays in one fold: rows of a user and item, or all of a user's")
    ] = "pair",
    seed: Annotated[int, typer.Option(min=0, help="of the folds; the models' own is training.seed")] = 0,
    hidden: Annotated[Path | None, typer.Option(help="YAML file of the ranker whose penultimate vectors are written, too")] = None,
    blocks: Annotated[int, typer.Option(min=2, help="--hidden: parts of the log in time, each annotated before it is learned")] = 20,
    set_: Annotated[list[str] | None, typer.Option("--set", help="override one setting of all configs: --set training.epochs=3")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue a stopped or killed one; finished trainings are not repeated")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the file and what was trained for it")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress, only the result")] = False,
) -> None:
    """Train rankers and write what they think of every row of the log: teacher_score, a probability, and teacher_hidden.

    No row is scored by a model that saw it: train rows are scored out of fold, validation and test rows by the model of all train rows.
    Vectors come from one ranker that walks through time. Use the file as the log:

        data: {recipe: movielens, log: runs/teacher/teacher.parquet, teacher: {column: teacher_score}}

    Examples:

        prerank teach configs/ml1m/teacher-deepfm.yaml --out runs/teacher/teacher.parquet --folds 3

        prerank teach configs/kuairand/teacher-*.yaml --out runs/teacher/kuairand.parquet --hidden configs/kuairand/teacher-deepfm.yaml

        prerank teach configs/kuairand/teacher-*.yaml --out runs/teacher/kuairand.parquet --resume
    """
    from prerank.config import ConfigError, load
    from prerank.teachers import teach as start
    from prerank.training import Quiet, console_progress

    if resume and overwrite:
        raise ConfigError("teach: --resume continues and --overwrite discards; give one of them")
    names = [path.stem for path in configs]
    twice = [n for n in names if names.count(n) > 1]
    if twice:
        raise ConfigError(f"teach: the configs' file names must differ; '{twice[0]}' stands twice")
    telling = Telling(quiet)
    members = {path.stem: load(path, set_ or []) for path in configs}
    taught = start(members, out, folds=folds, by=by, seed=seed, hidden=None if hidden is None else load(hidden, set_ or []), blocks=blocks,
                   resume=resume, overwrite=overwrite, say=telling.say, progress=Quiet if quiet else console_progress,
                   preparing=telling.preparing)  # fmt: skip
    for label, weights in taught.weights.items():
        told = ", ".join(f"{split} {value:.4f}" for split, value in taught.auc[label].items())
        typer.echo(f"{label}: {', '.join(f'{name} {w:.2f}' for name, w in weights.items())}; AUC {told}")
    typer.echo(f"{taught.out}: {taught.rows:,} rows, {taught.scored:,} scored")
