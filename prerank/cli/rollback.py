"""`prerank rollback`: put an earlier generation in force."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def rollback(
    folder: Annotated[Path, typer.Argument(help="generations, or a run")],
    to: Annotated[str | None, typer.Option("--to", help="gen-000012, or its number; default: the one before that in force")] = None,
) -> None:
    """Put an earlier generation in force, as it was exported: none of its deltas. Servers that follow the folder go back within a second.

    The one in force, given by --to, loses its deltas. What is published next is in force again.

    Examples:

        prerank rollback runs/shop

        prerank rollback runs/shop --to gen-000012
    """
    from prerank.cli.serve import find
    from prerank.serving.rollback import back

    typer.echo(back(find(folder), to))
