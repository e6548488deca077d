"""The generated part of docs/config.md: every key with type, default and meaning, read off the pydantic models and signatures."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from prerank import config
from prerank.build import GIVEN
from prerank.cli import VERBS
from prerank.datasets import RECIPES
from prerank.losses import LOSSES, TERMS
from prerank.rankers import RANKERS
from prerank.schema import Feature
from prerank.towers import TOWERS
from prerank.tuning import Latency, Range, Tune

MODELS: dict[str, type[BaseModel]] = {
    "run": config.Config, "data": config.Data, "feature": Feature, "label": config.Label, "split": config.Split, "derive": config.Derived,
    "asof": config.AsOf, "growth": config.Growth,
    "stage": config.StageColumn, "teacher": config.Teacher, "ecpm": config.Ecpm, "lists": config.Lists, "take": config.Take,
    "evaluation": config.Evaluation,
    "cas": config.Cas, "cts": config.Cts, "cms": config.Cms,
    "objective": config.TermConfig, "training": config.Training, "optimizer": config.Optimizer, "groups": config.ParameterGroup,
    "online": config.Online, "publish": config.Publish, "recall": config.Recall,
    "drift": config.Drift,
    "tune": Tune, "range": Range, "latency": Latency,
}  # fmt: skip
# Keys whose meaning the pydantic model leaves to their name.
SAID = {
    "run.name": "what tables and pictures call the run",
    "run.data": "where the log is and what its columns mean: [data](#data)",
    "run.model": "which model, with its options: [model](#model)",
    "run.objective": "what training minimises, a list of terms: [objective](#objective)",
    "run.training": "how it is trained: [training](#training)",
    "online.drift": "when a rising loss raises the alarm: [drift](#drift)",
    "data.labels": "what is learned: name -> how it is made, one logit each: [labels](#labels)",
    "data.split": "which rows are train, validation and test: [split](#split)",
    "data.derive": "columns made from the log itself: [derived columns](#derived-columns)",
    "data.features": "the columns that the towers read: [features](#features)",
    "feature.kind": "what the column's values are",
    "split.kind": "how rows are shared out",
    "split.seed": "random, user: of the draw",
    "derive.name": "of the new column; a feature reads it by this name",
    "derive.kind": "what is computed",
    "objective.loss": "name of the loss: one of those below",
    "objective.weight": "factor in the sum",
    "training.epochs": "at most so many",
    "training.batch_size": "log rows a step",
    "training.eval_batch_size": "log rows at a time in validation, `eval` and `export`",
    "training.optimizer": "[optimizer](#optimizer)",
    "training.seed": "of the initial weights and of the order of the rows",
    "optimizer.name": "the update rule",
    "optimizer.lr": "learning rate; ftrl: its alpha, which wants to be larger (0.1 to 0.5)",
    "optimizer.betas": "adam, adamw: decay of the two moments",
    "optimizer.groups": "[parameter groups](#parameter-groups)",
    "groups.lr": "learning rate; default: the optimizer's",
}  # fmt: skip


def keys(section: str) -> Callable[[], str]:
    """The table of a section's keys."""

    def table() -> str:
        lines = ["| key | type | default | what it is for |", "|---|---|---|---|"]
        for name, field in MODELS[section].model_fields.items():
            meaning = field.description or SAID[f"{section}.{name}"]
            required = field.default is PydanticUndefined and field.default_factory is None
            default = "required" if required else _value(field.get_default(call_default_factory=True))
            lines.append(f"| `{name}` | {_type(field.annotation)} | {default} | {_cell(meaning)} |")
        return "\n".join(lines)

    return table


def options(catalogue: dict[str, Any], skip: int, reserved: tuple[str, ...] = ()) -> Callable[[], str]:
    """A table of what each name of a catalogue takes, from its signature; what an option is for is in its docstring."""

    def table() -> str:
        lines = ["| name | options and defaults |", "|---|---|"]
        for name, make in catalogue.items():
            parameters = [p for p in list(inspect.signature(make).parameters.values())[skip:] if p.name not in reserved]
            said = ", ".join(f"`{p.name}: {_plain(p.default)}`" for p in parameters)
            lines.append(f"| `{name}` | {said or 'none'} |")
        return "\n".join(lines)

    return table


def meanings(name: str) -> Callable[[], str]:
    """What a model's options are for: the paragraph of its recipe's docstring."""

    def block() -> str:
        said = _said(TOWERS[name])
        return f"```text\n{said}\n```" if said else ""

    return block


def all_meanings(catalogue: dict[str, Any]) -> Callable[[], str]:
    """The same for every model of a catalogue that says something, one after another."""

    def blocks() -> str:
        return "\n\n".join(f"`{name}`:\n\n```text\n{said}\n```" for name, make in catalogue.items() if (said := _said(make)))

    return blocks


def _said(make: Any) -> str:
    """The lines of a recipe's docstring that explain options."""
    lines = [line for line in (inspect.getdoc(make) or "").splitlines() if re.match(r"^( {2,}|[a-z_, ]+ {3,})\S", line)]
    return "\n".join(lines).strip("\n")


def recipes() -> str:
    """Recipes and their options."""
    lines = ["| recipe | data | option | type | default | what it is for |", "|---|---|---|---|---|---|"]
    for name, recipe in RECIPES.items():
        for option, field in recipe.options.model_fields.items():
            lines.append(f"| `{name}` | {recipe.title} | `{field.alias or option}` | {_type(field.annotation)} | "
                         f"{_value(field.get_default())} | {_cell(field.description or '')} |")  # fmt: skip
    return "\n".join(lines)


def verbs() -> str:
    """The command line's verbs."""
    return "\n".join(["| verb | what it does |", "|---|---|", *(f"| `prerank {name}` | {verb.help} |" for name, verb in VERBS.items())])


def _type(annotation: Any) -> str:
    """A type in a reader's words."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{a}`" for a in args)
    if origin is typing.Annotated:
        return _type(args[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(a) for a in args if a is not type(None))
    if origin is tuple:
        inner = [a for a in args if a is not Ellipsis]
        return f"list of {_type(inner[0])}" if Ellipsis in args else f"list of {len(inner)} numbers"
    if origin is dict:
        return "mapping" if args[1] is Any else f"mapping to {_type(args[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    return {str: "text", int: "integer", float: "number", bool: "`true`, `false`", Any: "any value"}[annotation]


def _value(value: Any) -> str:
    if isinstance(value, BaseModel) or value in ((), {}):
        return "–"
    if isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        return "`[{loss: logloss}]`"
    if isinstance(value, dict):
        return f"`{{{', '.join(f'{k}: {v}' for k, v in value.items())}}}`"
    return f"`{_cell(_plain(value))}`" if value is not None else "–"


def _plain(value: Any) -> str:
    """A value as YAML has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_plain, value)) + "]"
    return str(value)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


SECTIONS: dict[str, Callable[[], str]] = {
    **{f"keys-{section}": keys(section) for section in MODELS},
    "models-options": options(TOWERS, 2),
    "rankers-options": options(RANKERS, 2),
    "rankers-meanings": all_meanings(RANKERS),
    "losses-options": options({**LOSSES, **TERMS}, 0, ("logits", "labels", "where", *GIVEN)),
    **{f"meanings-{name}": meanings(name) for name in TOWERS},
    "recipes": recipes,
    "verbs": verbs,
}
