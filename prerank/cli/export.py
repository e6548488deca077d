"""`prerank export`: a trained run becomes a generation that can be served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path | None, typer.Argument(help="run folder; default: the newest below runs/")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="folder of generations; default: RUN/generations")] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="of stored item vectors: fp32, bf16 (half the memory), int8 (a quarter)")] = "fp32",
    calibrator: Annotated[str, typer.Option("--calibrator", help="fitted on validation: platt, isotonic, or none")] = "platt",
    users: Annotated[bool, typer.Option("--users", help="also store users' vectors: a known user without features needs no tower")] = False,
    keep: Annotated[int, typer.Option("--keep", min=1, help="generations that stay in the folder")] = 3,
) -> None:
    """Encode all items, fit the calibrator, write the next generation and put it in force.

    A ranker encodes nothing: it is written to run for every candidate, and what one costs is said.

    Examples:

        prerank export runs/ml1m

        prerank export runs/ml1m --to /srv/generations --dtype bf16 --users
    """
    import torch

    from prerank import build
    from prerank.cli.verbs import complain
    from prerank.data.encoder import digest
    from prerank.run import open_run
    from prerank.serving import Generation, Scorer
    from prerank.serving import export as write

    opened = open_run(run)
    on = None
    if calibrator != "none":
        if len(opened.dataset.rows("validation")):
            on = opened.logits("validation")
        else:
            complain("no validation rows, so no calibrator: requests with bids will be refused", level="warning")
    folder = write(
        opened.dataset, opened.model, folder=to or opened.folder / "generations", options=opened.config.model.model_dump(mode="json"),
        synergy=None if opened.config.synergy is None else opened.config.synergy.model_dump(mode="json"),
        space=build.space(opened.config, digest(opened.dataset.encoders)),
        name=opened.config.name, calibrate_on=on, calibrator="platt" if calibrator == "none" else calibrator,
        dtype=dtype, users=users, keep=keep,  # type: ignore[arg-type]
        skipped=lambda why: complain(f"{why}; requests with bids for it will be refused", level="warning"),
    )  # fmt: skip
    generation = Generation(folder)
    stored = [("item vectors", generation.items.rows.nbytes), ("item columns", sum(c.nbytes for c in generation.columns.values())),
              ("user vectors", 0 if generation.user_vectors is None else generation.user_vectors.nbytes)]  # fmt: skip
    typer.echo(f"{folder}: {generation.meta.items:,} items, {generation.meta.users:,} users, {dtype}, "
               f"{', '.join(f'{size / 2**20:,.1f} MiB of {what}' for what, size in stored if size)}, "
               f"calibrated: {', '.join(generation.calibrators) or 'no'}")  # fmt: skip
    torch.set_num_threads(1)  # as a server's worker has
    cost = Scorer(generation, build.served).told()
    if cost is not None:
        typer.echo(cost)
    typer.echo(f"next: prerank serve {folder.parent}")
