"""The command line's two habits: a verb is imported only when it is run, and an error is one red line.

`prerank --help` must not wait for torch, so the group knows each verb by name and one line of help, and
loads its module when the verb is called. Everything a user can get wrong ends as one line a problem
on stderr and exit status 2; `--debug`, anywhere on the line, shows where it came from.
"""

from __future__ import annotations

import errno
import importlib
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

MISUSE, INTERRUPTED = 2, 130
_USAGE: Any = typer.BadParameter.__base__  # what typer raises for any wrong command line


@dataclass(frozen=True, slots=True)
class Verb:
    """What the group must know of a verb before it is loaded.

    help       one line
    function   its name in `prerank.cli.<verb>`, when it is not the verb's; a module whose verb has verbs of its own holds a typer `app`
    """

    help: str
    function: str | None = None


class Verbs(TyperGroup):
    """A group whose commands are loaded when called; `catalogue` names them, in the order of the help page."""

    catalogue: ClassVar[Mapping[str, Verb]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.catalogue)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The verb's name and help line, enough for help pages and completion."""
        verb = self.catalogue.get(cmd_name)
        return verb and TyperCommand(cmd_name, help=verb.help)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb itself, loaded; an unknown one is a usage error that names the nearest."""
        if args and args[0] not in self.catalogue and not args[0].startswith("-"):
            from prerank.config import nearest

            ctx.fail(f"no verb '{args[0]}'{nearest(args[0], self.catalogue)}")
        name, _, rest = super().resolve_command(ctx, args)
        return name, name and load(name, self.catalogue[name]), rest

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """`--debug` may stand anywhere: a user adds it to the end of the line that just failed."""
        if "--debug" in args:
            args = ["--debug", *(a for a in args if a != "--debug")]
        return super().parse_args(ctx, args)

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        with one_line(debug="--debug" in args):
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        with one_line(debug=bool(ctx.params.get("debug"))):
            return super().invoke(ctx)


@contextmanager
def one_line(*, debug: bool) -> Iterator[None]:
    """The user's mistakes become one line each and status 2, Ctrl-C one line and 130; bugs pass through."""
    try:
        yield
    except KeyboardInterrupt as stop:
        complain(str(stop) or "interrupted")  # training says where it stopped and how to go on
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        lines = sentences(error)
        if not lines:
            raise
        if debug:
            traceback.print_exc()
        for line in lines:
            complain(line)
        raise typer.Exit(MISUSE) from None


def load(name: str, verb: Verb) -> Any:
    """Import the verb's module and make its command."""
    module = importlib.import_module(f"prerank.cli.{name}")
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False)
        app.command(name)(getattr(module, verb.function or name))
    command: Any = typer.main.get_command(app)
    command.name, command.help = name, command.help or verb.help
    return command


def sentences(error: Exception) -> list[str]:
    """What to tell the user, one line a problem; nothing when the error is a bug of ours.

    ConfigError, DataError and every other ValueError that our own code raised are the user's to mend;
    so is a wrong option, and what the operating system refuses. A ValueError from deep inside a library is a bug.
    """
    if isinstance(error, OSError):
        if error.errno in (None, errno.EPIPE):
            return []
        return [f"'{error.filename}': {error.strerror}" if error.filename else str(error.strerror)]
    if isinstance(error, ValueError):
        ours = type(error).__module__.startswith("prerank.") or _raised_in(error).startswith("prerank.")
        return [line for line in str(error).splitlines() if line.strip()] if ours else []
    if isinstance(error, _USAGE) and type(error).__name__ != "NoArgsIsHelpError":  # that one is the help page itself
        command = error.ctx.command_path if error.ctx else "prerank"
        return [f"{error.format_message().rstrip('.')} (see {command} --help)"]
    return []


def complain(line: str, *, level: str = "error") -> None:
    """One line on stderr: red for an error, yellow for a warning; plain when stderr is no terminal."""
    typer.secho(f"{level}: {line}", fg=typer.colors.YELLOW if level == "warning" else typer.colors.RED, err=True)


def _raised_in(error: Exception) -> str:
    """Name of the module whose line raised the error."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return str(frames[-1][0].f_globals.get("__name__", "")) if frames else ""
