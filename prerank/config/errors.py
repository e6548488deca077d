"""What a user is told when settings are wrong."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel


class ConfigError(ValueError):
    """Something the user wrote is wrong; the message says what, where and what would be right."""


def nearest(word: str, valid: Iterable[str]) -> str:
    """`; did you mean 'x'?` when something is near, else the list of what is valid."""
    names = sorted(valid)
    close = difflib.get_close_matches(word[:100], names, n=1, cutoff=0.6)  # a request's word may be a million letters
    return f"; did you mean '{close[0]}'?" if close else f"; valid: {', '.join(names)}"


def sentence(error: Any, kind: type[BaseModel]) -> str:
    """One pydantic error as `key.path: rule, got value`."""
    path = ".".join(str(p) for p in error["loc"])
    if error["type"] == "extra_forbidden":
        *parents, key = error["loc"]
        return f"unknown key '{path}'{nearest(str(key), _keys_at(kind, parents))}"
    message = error["msg"].removeprefix("Value error, ")
    got = "" if error["type"] in ("missing", "value_error") else f"; got {error['input']!r}"
    return f"{path}: {message}{got}" if path else f"{message}{got}"


def _keys_at(kind: type[BaseModel], path: list[Any]) -> list[str]:
    """Valid keys of the mapping at a path of the settings."""
    model: Any = kind
    for part in path:
        if isinstance(part, int) or not (isinstance(model, type) and issubclass(model, BaseModel)):
            continue
        if part in model.model_fields:
            model = _inner_model(model.model_fields[part].annotation)
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _inner_model(annotation: Any) -> Any:
    """The pydantic model inside `X`, `X | None`, `tuple[X, ...]` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (tuple, list, dict, typing.Union, types.UnionType):
        for arg in typing.get_args(annotation):
            found = _inner_model(arg)
            if found is not None:
                return found
    return None
