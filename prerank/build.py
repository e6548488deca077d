"""Names -> objects: one function per noun. Unknown names and options say what is valid."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_type_hints

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from prerank.batch import Stage
from prerank.config import Cms, Config, ConfigError, Data, Model, Synergy, TermConfig, nearest
from prerank.losses import LISTWISE, LOSSES, TERMS, LossTerm, Objective, Term
from prerank.losses.objective import CLICK_ROWS, NEEDS
from prerank.rankers import RANKERS, Ranker
from prerank.schema import FIRST, Schema
from prerank.store import History
from prerank.synergy import RankerMemory, apply, teaching, widened
from prerank.towers import TOWERS, TwoTower

MODELS: dict[str, Callable[..., TwoTower | Ranker]] = {**TOWERS, **RANKERS}
GIVEN = ("weight", "objective", "stages", "item_id", "item_counts")  # a term's parameters that are no options of the user's


def model(config: Model, schema: Schema, sizes: Mapping[str, int], synergy: Synergy | None = None, *,
          space: str | None = None, history: History | None = None, apart: bool = False) -> TwoTower | Ranker:  # fmt: skip
    """The model that a config names, with fresh weights: two towers or a ranker. Raises ConfigError.

    synergy   what CS3 adds to two towers
    space     of a memory outside the model, see `space`; None: the model holds its memory itself
    history, apart   of its memories, see `synergy.apply`
    """
    recipe = _named(MODELS, config.name, "model")
    _check_options(recipe, config.options, f"model '{config.name}'", skip=2)
    sides: tuple[Literal["user", "item"], ...] = ("user", "item")
    needs = [side for side in sides if not schema.fields(side)]
    if needs and config.name not in ("mf", "history_mf"):
        raise ConfigError(f"model '{config.name}': needs at least one feature on each side; the schema has none on: {', '.join(needs)}")
    if config.options.get("id_history") and config.options.get("id_head") is None:
        raise ConfigError(f"model '{config.name}': id_history: needs id_head, the width of the vectors that histories are added to")
    if synergy is not None and config.name in RANKERS:
        raise ConfigError(f"model '{config.name}': synergy: belongs to two towers; this is a ranker, which sees both sides as it is")
    hidden = None if synergy is None or synergy.cms is None else _hidden_width(synergy.cms, schema)
    try:
        if synergy is None:
            return recipe(schema, sizes, **config.options)
        made = recipe(widened(schema, synergy), sizes, **config.options)
        apply(made, synergy, schema, sizes, hidden, space, history, apart)
        return made
    except (ValueError, RuntimeError) as error:  # RuntimeError: torch has no memory for it
        raise ConfigError(f"model '{config.name}': {str(error).splitlines()[0]}") from None


def served(meta: Mapping[str, Any]) -> TwoTower | Ranker:
    """The model that a generation's meta.json describes: serving's builder. Raises ConfigError."""
    synergy = None if meta.get("synergy") is None else Synergy.model_validate(meta["synergy"])
    schema = Schema.model_validate(meta["schema"])
    return model(Model.model_validate(meta["model"]), schema, meta["sizes"], synergy, space=meta.get("space"))


def space(config: Config, encoders: str) -> str | None:
    """What ids and vectors of the config's memory outside the model mean, as a fingerprint; None: it lies in the model.

    encoders   digest of the data's encoders: which id has which row
    """
    if config.synergy is None or config.synergy.store == "memory":
        return None
    vectors = {"model": config.model.model_dump(mode="json"), "synergy": config.synergy.model_dump(mode="json", exclude={"store"})}
    told = json.dumps({"encoders": encoders, "seed": config.training.seed, **vectors}, sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def check_model(config: Model, schema: Schema, terms: Sequence[TermConfig] = (), synergy: Synergy | None = None) -> TwoTower | Ranker:
    """Raise ConfigError if `model` would: the model is built with the smallest tables, before any data is read. Returns that one.

    terms   of the objective that it is to be trained with: those that look beyond the logits need a model that shows what they look at
    """
    built = model(config, schema, _smallest(schema), synergy, space="")  # nothing is opened
    for term in terms:
        made = TERMS.get(term.loss)
        if getattr(made, "needs_guess", False) and not getattr(built, "guesses", False):
            raise ConfigError(f"objective '{term.loss}': needs a model whose towers guess the other side's vectors, as dat's do; "
                              f"'{config.name}' does not")  # fmt: skip
        if getattr(made, "needs_towers", False) and isinstance(built, Ranker):
            raise ConfigError(f"objective '{term.loss}': looks at the vectors of user and item; '{config.name}' is a ranker and has none")
        if getattr(made, "needs_choice", False) and not getattr(built, "chooses", False):
            raise ConfigError(f"objective '{term.loss}': needs a model that learns which fields to keep, fscd without keep; "
                              f"'{config.name}' does not")  # fmt: skip
    return built


def _smallest(schema: Schema) -> dict[str, int]:
    """Sizes of vocabularies of one value."""
    return {schema.vocabulary_of(f): FIRST + 1 for f in schema.features}


def beside(cms: Cms, schema: Schema, sizes: Mapping[str, int]) -> Ranker:
    """The ranking model that CMS learns from, with fresh weights; it may read more than the towers do. Raises ConfigError."""
    assert cms.ranker is not None, "CMS by column"
    if cms.ranker.name not in RANKERS:
        raise ConfigError(f"synergy.cms: unknown ranker '{cms.ranker.name}'{nearest(cms.ranker.name, RANKERS)}")
    own = [f.name for f in schema.features if not f.field]
    for name in cms.reads:
        if name not in own:
            raise ConfigError(f"synergy.cms.reads: '{name}' must be a feature with field false{nearest(name, own)}")
    features = tuple(f.model_copy(update={"field": f.field or f.name in cms.reads}) for f in schema.features)
    made = model(cms.ranker, schema.model_copy(update={"features": features}), sizes)
    assert isinstance(made, Ranker)
    return made


def taught(synergy: Synergy | None, schema: Schema, space: str | None, history: History | None) -> list[RankerMemory]:
    """Memories that the ranking model of CMS fills for others, in a process of its own. Raises ConfigError."""
    try:
        if synergy is None or synergy.cms is None:
            raise ValueError("synergy.cms: a ranking model of its own needs one; there is none")
        return teaching(synergy, schema, _hidden_width(synergy.cms, schema), space or "", history)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _hidden_width(cms: Cms, schema: Schema) -> int:
    """K of the vectors that CMS will be given. Raises ConfigError."""
    if cms.column is not None:
        held = [f.name for f in schema.features if f.kind == "vector" and f.side == "context" and not f.field]
        if cms.column not in held:
            raise ConfigError(f"synergy.cms.column: '{cms.column}' must be a feature of kind vector, side context, field false"
                              f"{nearest(cms.column, held) if held else '; there is none'}")  # fmt: skip
        return schema[cms.column].dim or 0
    assert cms.ranker is not None
    ranker = beside(cms, schema, _smallest(schema)).eval()
    columns = [{f.name: torch.zeros(1, *((f.max_length,) if f.many else (f.dim,) if f.dim else ()),
                                    dtype=torch.int32 if f.embedded else torch.float32) for f in schema.on(side)}
               for side in ("user", "item")]  # fmt: skip
    with torch.no_grad():
        _, hidden = ranker.pairs(columns[0], columns[1], torch.zeros(1).long(), torch.zeros(1).long())
    if hidden is None:
        raise ConfigError(f"synergy.cms: ranker '{cms.ranker.name}' has no hidden layer whose vectors could be shared")
    return int(hidden.shape[1])


def objective(terms: Sequence[TermConfig], schema: Schema, counts: Mapping[str, NDArray[Any]] | None = None) -> Objective:
    """The objective that a config describes. Raises ConfigError.

    counts   {vocabulary: train counts of its rows}; without them a term that corrects for popularity is built, but cannot be called
    """
    if not terms:
        raise ConfigError("objective: needs at least one term; got none")
    return Objective(_told_apart([_term(term, schema, counts) for term in terms]))


def check_terms(config: Config, data: Data, schema: Schema) -> None:
    """Raise ConfigError for terms that `objective` refuses, or that would have nothing to look at in the batches of this config.

    data   the config's own, its recipe resolved
    """
    lists = config.training.lists
    loaded = {Stage[name.upper()] for name in lists.stages} if lists else {Stage.IMPRESSION}
    for term in objective(config.objective, schema).terms:
        for column, given in (("teacher", data.teacher), ("bid", data.bid)):
            if getattr(term, f"needs_{column}") and given is None:
                raise ConfigError(f"objective '{term.name}': {NEEDS[column]}")
        if term.compares and lists is None:
            raise ConfigError(f"objective '{term.name}': {CLICK_ROWS}, or training.lists to learn from lists")
        if term.stages is not None and not loaded & set(term.stages):
            seen, there = (", ".join(Stage(s).name.lower() for s in sorted(stages)) for stages in (term.stages, loaded))
            raise ConfigError(f"objective '{term.name}': looks at the stages {seen}, of which training loads none (it loads {there}); "
                              "name them in training.lists.stages")  # fmt: skip
    if schema.objectives[0] in unlearned(config.objective, schema):
        raise ConfigError(f"label '{schema.objectives[0]}': the epoch is chosen on it, and no term of the objective looks at it; give it "
                          "a term, or name another label first")  # fmt: skip


def unlearned(terms: Sequence[TermConfig], schema: Schema) -> list[str]:
    """Labels whose logit no term looks at, so that it stays as it was drawn."""
    learned = set()
    for term in objective(terms, schema).terms:
        learned |= {term.objective, *(getattr(term, option) for option in getattr(term, "labels", ()))}
    return [name for i, name in enumerate(schema.objectives) if i not in learned]


def _told_apart(terms: list[Term]) -> list[Term]:
    """The same terms; the second of a name becomes 'name-2', so that each can be read in the log."""
    met: Counter[str] = Counter()
    for term in terms:
        met[term.name] += 1
        term.name += f"-{n}" if (n := met[term.name]) > 1 else ""
    return terms


def _term(term: TermConfig, schema: Schema, counts: Mapping[str, NDArray[Any]] | None) -> Term:
    """One term: a loss function of logits and labels, or a term with a way of its own."""
    where = f"objective '{term.loss}'"
    index = _label_index(term.label, schema, where)
    name = term.loss if len(schema.objectives) == 1 or term.label is None else f"{term.loss}:{term.label}"
    options = dict(term.options)
    stages = _stages(options.pop("stages", None), where)
    if term.loss in TERMS:
        make = TERMS[term.loss]
        for name in getattr(make, "labels", ()):
            if name in options:
                options[name] = _label_index(options[name], schema, where)
        _check_options(make, options, where, skip=0, reserved=GIVEN)
        if "item_id" in inspect.signature(make).parameters:
            options["item_id"] = schema.item_id
            vocabulary = schema.vocabulary_of(schema[schema.item_id])
            options["item_counts"] = None if counts is None else torch.from_numpy(np.array(counts[vocabulary]))
        made: Term = _call(where, make, weight=term.weight, objective=index, stages=stages, **options)
        _check_reads(made, schema, where)
        made.name = name
        return made
    loss = _named({**LOSSES, **TERMS}, term.loss, "loss")
    lists = str(options.pop("lists", "own")) if term.loss in LISTWISE else None
    impressed = options.pop("impressed", 0.0) if term.loss in LISTWISE else 0.0
    if isinstance(impressed, bool) or not isinstance(impressed, (int, float)):
        raise ConfigError(f"{where}: option 'impressed': must be a number; got {impressed!r}")
    _check_options(loss, options, where, skip=2, reserved=("where", "weight"), also=() if lists is None else ("lists", "impressed"))
    bound = partial(loss, **options)
    _call(where, bound, logits=torch.zeros(1, 1), labels=torch.zeros(1, 1))  # a wrong option is told now, not at the first step
    return _call(where, LossTerm, name=name, loss=bound, weight=term.weight, objective=index, stages=stages, lists=lists,
                 impressed=float(impressed))  # fmt: skip


def _check_reads(term: Term, schema: Schema, where: str) -> None:
    """A term may look at item features that have a vocabulary."""
    valid = [f.name for f in schema.on("item") if f.embedded]
    for name in term.reads:
        if name not in valid:
            raise ConfigError(f"{where}: feature: '{name}' is no item feature with a vocabulary{nearest(name, valid)}")


def _call(where: str, make: Callable[..., Any], **options: Any) -> Any:
    try:
        return make(**options)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _named(catalogue: Mapping[str, Any], name: str, noun: str) -> Any:
    if name not in catalogue:
        raise ConfigError(f"unknown {noun} '{name}'{nearest(name, catalogue)}")
    return catalogue[name]


def _check_options(make: Callable[..., Any], options: Mapping[str, Any], where: str, *, skip: int, reserved: Sequence[str] = (),
                   also: Sequence[str] = ()) -> None:  # fmt: skip
    """An option that the callable's own signature does not have, or of another type than it says there, is an error.

    reserved, also   parameters that are not the user's; options that somebody else takes
    """
    valid = [*(p for p in list(inspect.signature(make).parameters)[skip:] if p not in reserved), *also]
    types = get_type_hints(make.__init__ if inspect.isclass(make) else make)
    for option, value in options.items():
        if option not in valid:
            raise ConfigError(f"{where}: unknown option '{option}'{nearest(option, valid)}")
        try:
            TypeAdapter(types[option], config=ConfigDict(allow_inf_nan=False)).validate_python(value, strict=True)
        except ValidationError as error:
            rule = error.errors()[0]["msg"]
            raise ConfigError(f"{where}: option '{option}': {rule}; got {value!r}") from None


def _label_index(label: Any, schema: Schema, where: str) -> int:
    if label is None:
        return 0
    if label not in schema.objectives:
        raise ConfigError(f"{where}: unknown label '{label}'{nearest(str(label), schema.objectives)}")
    return schema.objectives.index(label)


def _stages(names: Sequence[str] | None, where: str) -> tuple[int, ...] | None:
    if names is None:
        return None
    for name in names:
        if name.upper() not in Stage.__members__:
            raise ConfigError(f"{where}: unknown stage '{name}'{nearest(name, [s.lower() for s in Stage.__members__])}")
    return tuple(int(Stage[name.upper()]) for name in names)
