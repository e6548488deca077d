"""What a column looks like: the kind of feature it makes and its settings, or why it makes none.

describe(values, "genres")   {"kind": "multi", "max_length": 6, "why": "18 values, up to 6 a row"}
describe(values, "title")    "text, nearly every value is different"
"""

from __future__ import annotations

import re
from typing import Any

import polars as pl

_CODE = re.compile(
    r"(^|_)(id|ids|type|level|code|class|category|cat|gender|sex|zip|city|region|country|brand|author|creator|seller|shop|tag|tab|channel|group|range|segment|os)$"
)
_PAST = re.compile(r"(^|_)(hist|history|seq|sequence|recent|last|past|clicked|viewed|watched)(_|$)")
_SEPARATORS = ("|", ";", "^", ",", " ")
_FEW_VALUES, _BINS = 64, 32


def describe(values: pl.Series, name: str) -> dict[str, Any] | str:
    """A column as a feature's settings with `why`, or the reason why it is none."""
    known = values.drop_nulls()
    distinct = known.n_unique() if not known.dtype.is_nested() else len(known)
    if not len(known):
        return "always missing"
    if distinct == 1 and len(known) > 1:
        return "always the same value"
    if known.dtype.is_nested():
        return _list(known, name)
    if known.dtype.is_temporal():
        return "a date"
    if known.dtype in (pl.String, pl.Categorical, pl.Enum):
        return _text(known.cast(pl.String), name, distinct)
    if known.dtype == pl.Boolean:
        return {"why": "true or false"}
    whole = known.dtype.is_integer() or bool((known == known.floor()).all())
    if whole and (distinct <= _FEW_VALUES or _CODE.search(name.lower())):
        return {"why": f"{distinct:,} values"}
    low, high = known.cast(pl.Float64).quantile(0.0), known.cast(pl.Float64).quantile(1.0)
    return {"kind": "numeric", "bins": _BINS, "why": f"{low:,.0f} to {high:,.0f}" if whole else f"{low:.6g} to {high:.6g}"}


def _list(values: pl.Series, name: str) -> dict[str, Any] | str:
    lists = values.arr.to_list() if isinstance(values.dtype, pl.Array) else values
    if not isinstance(lists.dtype, pl.List):
        return f"a {values.dtype.base_type().__name__.lower()}"
    lengths = lists.list.len()
    if lists.list.explode().dtype.is_float():
        if lengths.n_unique() == 1 and lengths[0]:
            return {"kind": "vector", "dim": int(lengths[0]), "why": "a dense vector"}
        return "lists of numbers of different lengths"
    return _many(lists, name)


def _text(values: pl.Series, name: str, distinct: int) -> dict[str, Any] | str:
    for separator in _SEPARATORS:
        lists = values.str.split(separator)
        tokens = lists.list.explode().drop_nulls()
        several = len(lists.filter(lists.list.len() > 1)) / len(lists)
        if _is_list(separator, tokens, several):
            found = _many(lists, name)
            return found if separator == "|" else {**found, "separator": separator}
    if distinct > 0.5 * len(values) and distinct > 100 and not _CODE.search(name.lower()):
        return "text, nearly every value is different"
    return {"why": f"{distinct:,} values"}


def _is_list(separator: str, tokens: pl.Series, several: float) -> bool:
    """Text is a list when values have several tokens that come again and do not look like prose."""
    if several < 0.05 or tokens.n_unique() > 0.5 * len(tokens):
        return False
    pattern = {",": r"^[^\s,()\[\]]+( [^\s,()\[\]]+)?$", " ": r"^\d+$"}.get(separator, r"^.{1,40}$")
    return bool(tokens.filter(tokens != "").str.contains(pattern).all())


def _many(lists: pl.Series, name: str) -> dict[str, Any]:
    longest = int(lists.list.len().quantile(0.99, "higher") or 1)
    distinct = lists.list.explode().n_unique()
    kind = "sequence" if _PAST.search(name.lower()) else "multi"
    return {"kind": kind, "max_length": max(1, min(longest, 50)), "why": f"{distinct:,} values, up to {longest} a row"}
