"""`prerank validate`: every problem of a config and its data, at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prerank.cli.verbs import MISUSE, complain

if TYPE_CHECKING:
    from prerank.config import Config, Data


def validate(
    config: Annotated[Path, typer.Argument(help="YAML file of the run")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="override one setting: --set training.seed=3")] = None,
) -> None:
    """Check a config and its data, and report every problem at once.

    Reads all of the data. Errors are what training would refuse; warnings are what a person should look at, such as
    a column that alone tells the label. Exit status 2 when there are errors, else 0.

    Examples:

        prerank validate prerank.yaml

        prerank validate prerank.yaml --set data.log=today.parquet
    """
    settings, errors = _settings(config, set_ or [])
    from rich.console import Console

    from prerank.cli.inspection import Findings, inspect

    found = Findings()
    data = _resolved(settings, errors)
    if data is not None:
        errors += _recipes(settings, data)
        with Console(stderr=True).status("reading the data"):
            found = inspect(data)
    for line in (*errors, *found.errors):
        complain(line)
    for line in (*([] if errors or data is None else _untrained(settings, data)), *found.warnings):
        complain(line, level="warning")
    problems = len(errors) + len(found.errors)
    if problems:
        complain(f"{config}: {problems} problem{'s' if problems > 1 else ''}")
        raise typer.Exit(MISUSE)
    noted = f", {len(found.warnings)} warning{'s' if len(found.warnings) > 1 else ''}" if found.warnings else ""
    typer.echo(f"{config}: ok{noted}; {'; '.join(found.facts)}")


def _settings(path: Path, overrides: list[str]) -> tuple[Config, list[str]]:
    """The settings and what is wrong with them; wrong ones are left out, so that the rest can be checked too."""
    from pydantic import ValidationError

    from prerank.config import Config, ConfigError, override, parse, read

    raw = override(read(path), overrides)
    try:
        return parse(raw, where=str(path)), []
    except ConfigError as error:
        errors = str(error).splitlines()
    while True:
        try:
            return Config.model_validate(raw), errors
        except ValidationError as error:
            raw = _without(raw, error.errors()[-1]["loc"])


def _without(node: Any, path: tuple[int | str, ...]) -> Any:
    """A nested mapping without what stands at the path, or without the nearest thing around it that exists."""
    head, *rest = path or ("",)
    if isinstance(node, dict) and head in node:
        inner = _without(node[head], tuple(rest)) if rest else None
        return {k: inner if k == head else v for k, v in node.items() if k != head or inner is not None}
    if isinstance(node, list) and isinstance(head, int) and head < len(node):
        inner = _without(node[head], tuple(rest)) if rest else None
        return [inner if i == head else v for i, v in enumerate(node) if i != head or inner is not None]
    return None


def _resolved(settings: Config, errors: list[str]) -> Data | None:
    """The data settings with their recipe filled in and a schema that holds, or None with the reason added to the errors."""
    from prerank.datasets import resolve

    try:
        data = resolve(settings.data)
        data.schema_()
        return data
    except ValueError as error:
        errors += str(error).splitlines()
    return None


def _recipes(settings: Config, data: Data) -> list[str]:
    """What the model and the losses would refuse."""
    from prerank import build
    from prerank.config import ConfigError

    schema, errors = data.schema_(), []
    checks = (lambda: build.check_model(settings.model, schema, settings.objective, settings.synergy),
              lambda: build.check_terms(settings, data, schema))  # fmt: skip
    for check in checks:
        try:
            check()
        except ConfigError as error:
            errors += str(error).splitlines()
    return errors


def _untrained(settings: Config, data: Data) -> list[str]:
    """Warnings for labels that the objective passes over."""
    from prerank import build

    return [f"label '{name}': no term of the objective looks at it; its logit is neither trained nor evaluated"
            for name in build.unlearned(settings.objective, data.schema_())]  # fmt: skip
