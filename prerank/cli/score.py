"""`prerank score`: score one user against candidates, in process or through a running server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def score(
    folder: Annotated[Path | None, typer.Argument(help="generations, one generation, or a run; default: the newest run's")] = None,
    user: Annotated[str | None, typer.Option("--user", "-u", help="user id; without one, the cold user")] = None,
    candidates: Annotated[str, typer.Option("--candidates", "-i", help="item ids: 1,2,3; or - to read them from stdin; or all")] = "all",
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="how many of the best")] = 10,
    set_: Annotated[list[str] | None, typer.Option("--set", "-s", help="a user or context feature: --set tab=1")] = None,
    url: Annotated[str | None, typer.Option("--url", help="ask this server instead of scoring here")] = None,
    token: Annotated[str | None, typer.Option("--token", envvar="PRERANK_TOKEN", help="the server's bearer token")] = None,
    json: Annotated[bool, typer.Option("--json", help="the whole response as JSON")] = False,
) -> None:
    """Order candidates for a user.

    Examples:

        prerank score runs/ml1m --user 1 --candidates 1,2,3

        prerank score --url http://127.0.0.1:8080 --user 1 --candidates 1,2,3 --json
    """
    import msgspec

    response = _remote(url, token, user, candidates, k, set_ or []) if url else _local(folder, user, candidates, k, set_ or [])
    if json:
        typer.echo(msgspec.json.encode(response))
        return
    for item, value in zip(response.items, response.scores, strict=True):
        typer.echo(f"{item}\t{value:.6f}")
    for what, ids in (("unknown items", response.missing), ("missing features", response.missing_features)):
        if len(ids):
            typer.echo(f"{what}: {', '.join(map(str, ids[:10]))}{' ...' if len(ids) > 10 else ''}", err=True)
    if response.unknown_user:
        typer.echo(f"unknown user: {user}; the cold vector was used", err=True)


def _local(folder: Path | None, user: str | None, candidates: str, k: int, given: list[str]) -> Any:
    import numpy as np

    from prerank import build
    from prerank.cli.serve import find
    from prerank.serving import Request, Scorer, open_current

    generation = open_current(find(folder))
    known = generation.item_ids
    everything = known.ids.tolist() if isinstance(known.ids, np.ndarray) else list(known.ids)
    items = everything if candidates == "all" else [_id(i, known.integer, "candidates") for i in _listed(candidates)]
    features, context = _parts(given, {f.name for f in generation.schema.features if f.side == "context"})
    asked = None if user is None else _id(user, generation.user_ids.integer, "user")
    request = Request(candidates=items, user=asked, k=k, features=features, context=context)
    return Scorer(generation, build.served).score([request])[0]


def _remote(url: str, token: str | None, user: str | None, candidates: str, k: int, given: list[str]) -> Any:
    from prerank.config import ConfigError
    from prerank.serving import Client

    if candidates == "all":
        raise ConfigError("--candidates: a server must be told which items; give their ids")
    with Client(url, token) as client:
        schema = client.schema()
        items = [_id(i, schema["item_id"] == "integer", "candidates") for i in _listed(candidates)]
        features, context = _parts(given, {f["name"] for f in schema["context"]})
        asked = None if user is None else _id(user, schema["user_id"] == "integer", "user")
        return client.score(items, user=asked, k=k, features=features, context=context)


def _listed(candidates: str) -> list[str]:
    """Ids between commas, or on stdin between commas or white space."""
    text = sys.stdin.read() if candidates == "-" else candidates
    return text.replace(",", " ").split()


def _id(text: str, integer: bool, option: str) -> int | str:
    from prerank.config import ConfigError

    if not integer:
        return text
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"--{option}: ids of this generation are integers; got '{text}'") from None


def _parts(given: list[str], context: set[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`--set a=1` -> features or context; values are read as YAML."""
    import yaml

    from prerank.config import ConfigError

    features: dict[str, Any] = {}
    of_request: dict[str, Any] = {}
    for setting in given:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set '{setting}': must look like feature=value")
        (of_request if name in context else features)[name] = yaml.safe_load(text)
    return features, of_request
