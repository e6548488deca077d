"""`prerank serve`: answer scoring requests over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
) -> None:
    """Serve the generation in force; newer ones and deltas are swapped in while requests go on.

    POST /score, POST and DELETE /items, POST /users, GET /health, GET /metrics (Prometheus), GET /schema, GET /docs (OpenAPI). SIGTERM
    finishes what is in flight.

    Examples:

        prerank serve runs/ml1m

        prerank serve /var/cache/shop --source 's3://models/shop'

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
    settings = Settings(find(folder), token, body_limit, candidate_limit, follow, source)
    run(settings, build.served, host=host, port=port, workers=workers)


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
