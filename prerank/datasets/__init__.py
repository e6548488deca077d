"""Data sets the house knows by name: official files in, Parquet tables and fitting settings out.

    data = resolve(Data(recipe="movielens"))     the same Data with log, users, items and everything unset filled in

Whoever reads settings resolves them first; beyond that, nobody needs to know that there are recipes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prerank.config import ConfigError, Data, Split, nearest
from prerank.datasets import download
from prerank.datasets.ali_ccp import ALI_CCP
from prerank.datasets.amazon import AMAZON
from prerank.datasets.kuairand import KUAIRAND
from prerank.datasets.movielens import MOVIELENS
from prerank.datasets.recflow import RECFLOW
from prerank.datasets.recipe import Options, Recipe, cache_folder, notes
from prerank.datasets.recsys2017 import RECSYS2017
from prerank.datasets.simulated import SIMULATED, oracle
from prerank.datasets.taobao_ad import TAOBAO_AD
from prerank.datasets.taobao_behavior import TAOBAO_BEHAVIOR

__all__ = ["RECIPES", "Options", "Recipe", "cache_folder", "converted", "get", "notes", "oracle", "recipe", "resolve"]

_ALL = (
    MOVIELENS,
    KUAIRAND,
    AMAZON,
    TAOBAO_AD,
    TAOBAO_BEHAVIOR,
    ALI_CCP,
    RECSYS2017,
    RECFLOW,
    SIMULATED,
)
RECIPES: dict[str, Recipe] = {r.name: r for r in _ALL}


def recipe(name: str) -> Recipe:
    """The recipe of that name, or ConfigError with the nearest one."""
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe '{name}'{nearest(name, RECIPES)}")
    return RECIPES[name]


def converted(data: Data) -> Path:
    """Folder of the recipe's Parquet tables for these settings, made now if it is not there yet.

    Raises ConfigError when the official files are nowhere, DataError when they are not what they should be.
    """
    known = recipe(data.recipe or "")
    base = Path(data.cache).expanduser() if data.cache else cache_folder()
    return known.convert(known.require(data.options), base / "converted", data.options)


def resolve(data: Data) -> Data:
    """Settings with a recipe -> settings without one: its tables, and its defaults wherever the user wrote nothing.

    Settings without a recipe come back as they are. A feature that reads what the impression's outcome decides is refused (ConfigError).
    """
    if data.recipe is None:
        return data
    known = recipe(data.recipe)
    said = {name: getattr(data, name) for name in data.model_fields_set}
    filled = Data.model_validate(known.defaults(data.options))
    fields = {name: getattr(filled, name) for name in filled.model_fields_set} | said
    if "split" in said and "split" in filled.model_fields_set:
        fields["split"] = _merged(filled.split, data.split)
    fields |= {"recipe": None, "options": {}}
    _refuse(known, fields)
    folder = converted(data)
    for table in ("log", "users", "items"):
        if table not in said and (path := folder / f"{table}.parquet").is_file():
            fields[table] = str(path)
    return Data(**fields)


def get(name: str, *, source: Path | None = None, destination: Path | None = None, progress: download.Progress | None = None) -> Path:
    """Fetch a data set's official archive, or copy its files from a folder; see `download.get`."""
    known = recipe(name)
    return download.get(known, source=source, destination=destination or cache_folder() / "raw" / known.name, progress=progress)


def _merged(default: Split, said: Split) -> Split:
    """`split: {seed: 3}` keeps the recipe's kind of split; another kind starts afresh."""
    if said.kind != default.kind and "kind" in said.model_fields_set:
        return said
    chosen = {n: getattr(default, n) for n in default.model_fields_set} | {n: getattr(said, n) for n in said.model_fields_set}
    return Split(**chosen)


def _refuse(known: Recipe, fields: dict[str, Any]) -> None:
    problems = [
        f"recipe '{known.name}': feature '{f.name}': column '{f.source}' cannot be a feature: {known.refused[f.source]}"
        for f in fields.get("features", ())
        if f.source in known.refused
    ]
    if problems:
        raise ConfigError("\n".join(problems))
