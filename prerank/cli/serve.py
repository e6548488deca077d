"""`prerank serve`: answer scoring requests over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from prerank.serving import Experiment


def serve(
    folder: Annotated[Path | None, typer.Argument(help="generations, one generation, or a run; default: the newest run's")] = None,
    host: Annotated[str, typer.Option("--host", help="address to listen on; 0.0.0.0 for all, then better with a token")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="0: a free one")] = 8080,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="processes that share the port")] = 1,
    token: Annotated[str | None, typer.Option("--token", envvar="PRERANK_TOKEN", help="bearer token that requests must bring")] = None,
    body_limit: Annotated[int, typer.Option("--body-limit", min=1, help="bytes of a request; more is 413")] = 8_000_000,
    candidate_limit: Annotated[int, typer.Option("--candidate-limit", min=1, help="candidates of a request; more is 422")] = 100_000,
    follow: Annotated[float, typer.Option("--follow", min=0, help="seconds between two looks for a newer generation; 0: never")] = 1.0,
    source: Annotated[str | None, typer.Option("--source", help="url to copy generations from into FOLDER: s3://.., redis://..")] = None,
    log: Annotated[str | None, typer.Option("--log", help="event log for what is answered and POST /events: sqlite:///events.db")] = None,
    memory_timeout: Annotated[
        float, typer.Option("--memory-timeout", min=0.001, help="seconds that a request waits for users' memory in another store")
    ] = 0.05,
    experiment: Annotated[Path | None, typer.Option("--experiment", help="YAML file of arms: users are dealt to several models")] = None,
) -> None:
    """Serve the generation in force; newer ones and deltas are swapped in while requests go on.

    POST /score, POST /events, POST and DELETE /items, POST /users, GET /health, GET /metrics (Prometheus), GET /schema, GET /docs
    (OpenAPI). SIGTERM finishes what is in flight.

    Examples:

        prerank serve runs/ml1m

        prerank serve /var/cache/shop --source 's3://models/shop'

        prerank serve --experiment experiment.yaml --log sqlite:///events.db

        curl localhost:8080/score -d '{"user": 1, "candidates": [1, 2, 3], "k": 2}'
    """
    from prerank import build
    from prerank.serving import Settings
    from prerank.serving import serve as run

    if source is not None:
        from prerank.serving.follow import open_source

        where = "given FOLDER" if folder is None else f"'{folder}'"
        pause = f"looks every {follow:g} s" if follow else "looks once"
        typer.echo(f"following {open_source(source)!r} into {where}; {pause}")
    arms = None if experiment is None else _arms(experiment, folder, source)
    settings = Settings(find(folder) if arms is None else None, token, body_limit, candidate_limit, follow, source, log, arms,
                        memory_timeout)  # fmt: skip
    run(settings, build.served, host=host, port=port, workers=workers)


def _arms(path: Path, folder: Path | None, source: str | None) -> Experiment:
    """An experiment, its folders found as FOLDER is. Raises ConfigError, also where one model is named beside it."""
    from prerank.config import ConfigError
    from prerank.serving.experiment import read

    if folder is not None or source is not None:
        raise ConfigError(f"--experiment: its arms name their own; {'FOLDER' if folder is not None else '--source'} must not be given")
    found = read(path)
    own = {"arms": tuple(a.model_copy(update={"folder": find(a.folder)}) for a in found.arms),
           "shadow": tuple(s.model_copy(update={"folder": find(s.folder)}) for s in found.shadow)}  # fmt: skip
    return found.model_copy(update=own)


def find(folder: Path | None) -> Path:
    """The folder of generations that an argument means: itself, a run's, or the newest run's. Raises ConfigError."""
    from prerank.config import ConfigError
    from prerank.run import NEWEST_IN

    if folder is not None:
        return folder / "generations" if (folder / "generations").is_dir() else folder
    found = sorted(NEWEST_IN.glob("*/generations/current.json"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise ConfigError(f"no generation found below '{NEWEST_IN}'; write one with `prerank export`")
    return found[-1].parent
