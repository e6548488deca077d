"""Names -> objects: one function per noun. Unknown names and options say what is valid."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_type_hints

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError

from prerank.batch import Stage
from prerank.config import ConfigError, Model, TermConfig, nearest
from prerank.losses import LOSSES, TERMS, LossTerm, Objective, Term
from prerank.rankers import RANKERS, Ranker
from prerank.schema import FIRST, Schema
from prerank.towers import TOWERS, TwoTower

MODELS: dict[str, Callable[..., TwoTower | Ranker]] = {**TOWERS, **RANKERS}


def model(config: Model, schema: Schema, sizes: Mapping[str, int]) -> TwoTower | Ranker:
    """The model that a config names, with fresh weights: two towers or a ranker. Raises ConfigError."""
    recipe = _named(MODELS, config.name, "model")
    _check_options(recipe, config.options, f"model '{config.name}'", skip=2)
    sides: tuple[Literal["user", "item"], ...] = ("user", "item")
    needs = [side for side in sides if not schema.fields(side)]
    if needs and config.name != "mf":
        raise ConfigError(f"model '{config.name}': needs at least one feature on each side; the schema has none on: {', '.join(needs)}")
    try:
        return recipe(schema, sizes, **config.options)
    except (ValueError, RuntimeError) as error:  # RuntimeError: torch has no memory for it
        raise ConfigError(f"model '{config.name}': {str(error).splitlines()[0]}") from None


def served(meta: Mapping[str, Any]) -> TwoTower | Ranker:
    """The model that a generation's meta.json describes: serving's builder. Raises ConfigError."""
    return model(Model.model_validate(meta["model"]), Schema.model_validate(meta["schema"]), meta["sizes"])


def check_model(config: Model, schema: Schema) -> None:
    """Raise ConfigError if `model` would: the model is built with the smallest tables, before any data is read."""
    model(config, schema, {schema.vocabulary_of(f): FIRST + 1 for f in schema.features})


def objective(terms: Sequence[TermConfig], schema: Schema) -> Objective:
    """The objective that a config describes. Raises ConfigError."""
    if not terms:
        raise ConfigError("objective: needs at least one term; got none")
    built: list[Term] = []
    for term in terms:
        where = f"objective '{term.loss}'"
        index = _label_index(term, schema, where)
        options = dict(term.options)
        stages = _stages(options.pop("stages", None), where)
        name = term.loss if len(schema.objectives) == 1 or term.label is None else f"{term.loss}:{term.label}"
        if term.loss in TERMS:
            _check_options(TERMS[term.loss], options, where, skip=0, reserved=("weight", "objective", "stages"))
            built.append(_call(where, TERMS[term.loss], weight=term.weight, objective=index, stages=stages, **options))
            continue
        loss = _named({**LOSSES, **TERMS}, term.loss, "loss")
        _check_options(loss, options, where, skip=2, reserved=("where", "weight"))
        bound = partial(loss, **options)
        _call(where, bound, logits=torch.zeros(1, 1), labels=torch.zeros(1, 1))  # a wrong option is told now, not at the first step
        built.append(LossTerm(name, bound, weight=term.weight, objective=index, stages=stages))
    return Objective(built)


def _call(where: str, make: Callable[..., Any], **options: Any) -> Any:
    try:
        return make(**options)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _named(catalogue: Mapping[str, Any], name: str, noun: str) -> Any:
    if name not in catalogue:
        raise ConfigError(f"unknown {noun} '{name}'{nearest(name, catalogue)}")
    return catalogue[name]


def _check_options(make: Callable[..., Any], options: Mapping[str, Any], where: str, *, skip: int, reserved: Sequence[str] = ()) -> None:
    """An option that the callable's own signature does not have, or of another type than it says there, is an error."""
    valid = [p for p in list(inspect.signature(make).parameters)[skip:] if p not in reserved]
    types = get_type_hints(make.__init__ if inspect.isclass(make) else make)
    for option, value in options.items():
        if option not in valid:
            raise ConfigError(f"{where}: unknown option '{option}'{nearest(option, valid)}")
        try:
            TypeAdapter(types[option], config=ConfigDict(allow_inf_nan=False)).validate_python(value, strict=True)
        except ValidationError as error:
            rule = error.errors()[0]["msg"]
            raise ConfigError(f"{where}: option '{option}': {rule}; got {value!r}") from None


def _label_index(term: TermConfig, schema: Schema, where: str) -> int:
    if term.label is None:
        return 0
    if term.label not in schema.objectives:
        raise ConfigError(f"{where}: unknown label '{term.label}'{nearest(term.label, schema.objectives)}")
    return schema.objectives.index(term.label)


def _stages(names: Sequence[str] | None, where: str) -> tuple[int, ...] | None:
    if names is None:
        return None
    for name in names:
        if name.upper() not in Stage.__members__:
            raise ConfigError(f"{where}: unknown stage '{name}'{nearest(name, [s.lower() for s in Stage.__members__])}")
    return tuple(int(Stage[name.upper()]) for name in names)
