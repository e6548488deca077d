"""One YAML file <-> typed settings; an unknown key is an error that names the nearest valid one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from prerank.config.errors import ConfigError, sentence
from prerank.config.run import Config

M = TypeVar("M", bound=BaseModel)


def load(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """Read and check a YAML file. Raises ConfigError naming every problem at once."""
    return parse(read(path), overrides, where=str(path))


def read(path: str | Path) -> dict[str, Any]:
    """A YAML file as a plain mapping, unchecked. Raises ConfigError when it cannot be read or is no mapping."""
    path = Path(path)
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"config '{path}': cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"config '{path}': is not text in UTF-8") from None
    try:
        raw = yaml.load(text, _Loader) or {}
    except yaml.YAMLError as error:
        why = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"config '{path}': not valid YAML: {why}{_mark(error)}") from None
    except RecursionError:
        raise ConfigError(f"config '{path}': not valid YAML: brackets inside brackets without end") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"config '{path}': must be a mapping of keys, got {type(raw).__name__}")
    return raw


def override(raw: dict[str, Any], overrides: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """A plain mapping with each `a.b=1` put in. Raises ConfigError for one that cannot be."""
    for one in overrides:
        raw = _override(raw, one)
    return raw


def parse(raw: dict[str, Any], overrides: list[str] | tuple[str, ...] = (), where: str = "config") -> Config:
    """Check a plain mapping. Raises ConfigError naming every problem at once."""
    return checked(Config, override(raw, overrides), where)


def checked(kind: type[M], raw: dict[str, Any], where: str) -> M:
    """A plain mapping as settings of a kind. Raises ConfigError naming every problem at once."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        problems = [sentence(e, kind) for e in error.errors()]
        raise ConfigError("\n".join(f"{where}: {p}" for p in problems)) from None


def dump(config: Config) -> str:
    """The settings that were written, as YAML that `load` reads back to an equal Config.

    Also where it equals the default: a recipe fills in what was not written, so a written `split.kind: random` means something.
    """
    return yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True), sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """YAML that does not let a key stand twice, which would silently take the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key.value}' stands twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _mark(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""


def _override(raw: dict[str, Any], override: str) -> dict[str, Any]:
    """`a.b=1` -> raw with that value; the value is read as YAML."""
    key, sep, text = override.partition("=")
    if not sep or not key:
        raise ConfigError(f"--set '{override}': must look like key.path=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set '{override}': the value is not valid YAML") from None
    return put(raw, key, value, f"--set '{override}'")


def put(raw: dict[str, Any], key: str, value: Any, where: str) -> dict[str, Any]:
    """A copy of a plain mapping with a value at a path, 'a.0.b'. Raises ConfigError, which starts with `where`."""
    found: dict[str, Any] = _put(raw, key.split("."), value, where)
    return found


def _put(node: Any, path: list[str], value: Any, where: str) -> Any:
    if not path:
        return value
    head, *rest = path
    if isinstance(node, (list, tuple)):
        if not head.isdecimal() or int(head) >= len(node):
            raise ConfigError(f"{where}: '{head}' must be an index below {len(node)}")
        return [_put(v, rest, value, where) if i == int(head) else v for i, v in enumerate(node)]
    if node is not None and not isinstance(node, dict):
        raise ConfigError(f"{where}: '{head}' lies inside a plain value")
    node = node or {}
    return {**node, head: _put(node.get(head), rest, value, where)}
