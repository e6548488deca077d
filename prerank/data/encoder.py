"""Raw values of a feature to the column that towers read: the same code for the log, the entity tables and a request.

    feature           encoder       column
    categorical       Categorical   int32 [n]               rows of a vocabulary
    multi, sequence   Many          int32 [n, max_length]   rows of a vocabulary, padded with 0 at the end
    numeric, bins     Bins          int32 [n]               1 missing, then the bins
    numeric           Standardise   float32 [n]             missing = 0.0, the mean
    vector            Vector        float32 [n, dim]        missing = zeros

`encode` never raises on unknown values; values of a wrong type raise DataError. `save` and `load`
write them without pickle: vocabularies as Parquet, the rest as one JSON file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol
from urllib.parse import quote

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prerank.data.errors import DataError
from prerank.data.growing import GrowingVocabulary
from prerank.data.values import Place, Values, as_lists, as_type, flatten, numbers, row, sane, series
from prerank.data.vocabulary import Vocabulary
from prerank.schema import FIRST, MISSING

Column = NDArray[Any]  # int32 or float32, one row per row
AnyVocabulary = Vocabulary | GrowingVocabulary


class Encoder(Protocol):
    """size: rows of the embedding table, None for float columns."""

    kind: ClassVar[str]
    name: str

    @property
    def size(self) -> int | None: ...

    def encode(self, values: Values, place: Place = row) -> Column: ...

    def missing(self) -> Column: ...


class Categorical:
    """One value a row -> its row of the vocabulary."""

    kind: ClassVar[str] = "categorical"

    def __init__(self, name: str, vocabulary: AnyVocabulary) -> None:
        self.name, self.vocabulary = name, vocabulary

    @property
    def size(self) -> int:
        return self.vocabulary.size

    def encode(self, values: Values, place: Place = row) -> Column:
        """[n] -> int32 [n]"""
        return self.vocabulary.rows(values, f"feature '{self.name}'", place)

    def missing(self) -> Column:
        return np.array([MISSING], np.int32)


class Many:
    """A list a row (or text split by the separator) -> padded rows of the vocabulary; an empty list is a missing one.

    keep   which values of a longer list stay: first (multi) or last (sequence: the most recent)
    """

    kind: ClassVar[str] = "many"

    def __init__(self, name: str, vocabulary: AnyVocabulary, max_length: int, keep: Literal["first", "last"], separator: str = "|") -> None:
        self.name, self.vocabulary = name, vocabulary
        self.max_length, self.keep, self.separator = max_length, keep, separator

    @property
    def size(self) -> int:
        return self.vocabulary.size

    def encode(self, values: Values, place: Place = row) -> Column:
        """[n] -> int32 [n, max_length]"""
        what = f"feature '{self.name}'"
        flat, lengths = flatten(values, what, self.separator, self.max_length, self.keep)
        out = np.zeros((len(lengths), self.max_length), np.int32)
        rows = np.repeat(np.arange(len(lengths)), lengths)
        at = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        out[rows, at] = self.vocabulary.rows(flat, what, lambda i: place(int(rows[i])))
        out[lengths == 0, 0] = MISSING
        return out

    def missing(self) -> Column:
        out = np.zeros((1, self.max_length), np.int32)
        out[0, 0] = MISSING
        return out


class Bins:
    """Numbers -> equal-frequency bins; bin b holds edges[b-1] <= x < edges[b]. Missing, NaN and infinite: row 1."""

    kind: ClassVar[str] = "bins"

    def __init__(self, name: str, edges: NDArray[np.float64]) -> None:
        self.name, self.edges = name, edges

    @property
    def size(self) -> int:
        return FIRST + len(self.edges) + 1

    def encode(self, values: Values, place: Place = row) -> Column:
        """[n] -> int32 [n]"""
        x = numbers(values, f"feature '{self.name}'", place)
        bins = (np.searchsorted(self.edges, x, side="right") + FIRST).astype(np.int32)
        bins[~np.isfinite(x)] = MISSING
        return bins

    def missing(self) -> Column:
        return np.array([MISSING], np.int32)


class Standardise:
    """Numbers -> (x - mean) / deviation. Missing, NaN and beyond what a float32 holds: 0.0, the mean."""

    kind: ClassVar[str] = "standardise"

    def __init__(self, name: str, mean: float, deviation: float) -> None:
        self.name, self.mean, self.deviation = name, mean, deviation

    @property
    def size(self) -> None:
        return None

    def encode(self, values: Values, place: Place = row) -> Column:
        """[n] -> float32 [n]"""
        x = numbers(values, f"feature '{self.name}'", place)
        x[~sane(x)] = self.mean
        z = (x - self.mean) / self.deviation
        return np.where(sane(z), z, 0.0).astype(np.float32)

    def missing(self) -> Column:
        return np.zeros(1, np.float32)


class Vector:
    """Lists of `dim` numbers (or text split by the separator), as they are; missing: zeros."""

    kind: ClassVar[str] = "vector"

    def __init__(self, name: str, dim: int, separator: str = "|") -> None:
        self.name, self.dim, self.separator = name, dim, separator

    @property
    def size(self) -> None:
        return None

    def encode(self, values: Values, place: Place = row) -> Column:
        """[n] -> float32 [n, dim]. Raises DataError when a vector has another length."""
        what = f"feature '{self.name}'"
        lists = as_lists(series(values, what), self.separator, what)
        lengths = lists.list.len().fill_null(self.dim).to_numpy()
        wrong = np.flatnonzero(lengths != self.dim)
        if len(wrong):
            raise DataError(f"{what}: a vector must have {self.dim} numbers, {place(int(wrong[0]))} has {lengths[wrong[0]]}")
        out = np.zeros((len(lists), self.dim), np.float32)
        known = lists.is_not_null().to_numpy()
        rows = np.flatnonzero(known)
        inner = lists.drop_nulls().list.explode() if len(rows) else pl.Series([], dtype=pl.Float64)
        flat = as_type(inner, pl.Float64(), what, lambda i: place(int(rows[i // self.dim])))
        x = flat.fill_null(0.0).to_numpy()
        out[known] = np.where(sane(x), x, 0.0).astype(np.float32).reshape(-1, self.dim)
        return out

    def missing(self) -> Column:
        return np.zeros((1, self.dim), np.float32)


ENCODERS: dict[str, type] = {c.kind: c for c in (Categorical, Many, Bins, Standardise, Vector)}


def save(encoders: Mapping[str, Encoder], folder: Path) -> None:
    """Write encoders.json and one Parquet file a vocabulary (shared ones once) into an existing folder."""
    described: dict[str, dict[str, Any]] = {}
    files: dict[int, str] = {}
    for name, encoder in encoders.items():
        state: dict[str, Any] = {"kind": encoder.kind}
        for key, value in vars(encoder).items():
            if isinstance(value, AnyVocabulary):
                if id(value) not in files:
                    files[id(value)] = f"{quote(name, safe='')}{value.suffix}"
                    value.save(folder / files[id(value)])
                state[key] = files[id(value)]
            else:
                state[key] = value.tolist() if isinstance(value, np.ndarray) else value
        described[name] = state
    (folder / "encoders.json").write_text(json.dumps(described))


def load(folder: Path) -> dict[str, Encoder]:
    """What `save` wrote. Raises DataError when it is not whole."""
    try:
        described = json.loads((folder / "encoders.json").read_text())
        files = {s["vocabulary"] for s in described.values() if "vocabulary" in s}
        vocabularies = {f: _vocabulary(folder / f) for f in sorted(files)}
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise DataError(f"encoders '{folder}': cannot be read: {str(error).splitlines()[0]}") from None
    encoders = {}
    for name, state in described.items():
        kind = state.pop("kind")
        if "vocabulary" in state:
            state["vocabulary"] = vocabularies[state["vocabulary"]]
        if "edges" in state:
            state["edges"] = np.array(state["edges"], np.float64)
        encoders[name] = ENCODERS[kind](**state)
    return encoders


def _vocabulary(path: Path) -> AnyVocabulary:
    return GrowingVocabulary.load(path) if path.name.endswith(GrowingVocabulary.suffix) else Vocabulary.load(path)


def digest(encoders: Mapping[str, Encoder]) -> str:
    """16 hex digits that change with anything a weight's meaning depends on: vocabularies and their order, bins, means."""
    found = hashlib.sha256()
    for name, encoder in encoders.items():
        found.update(f"\n{name} {encoder.kind}".encode())
        for key, value in vars(encoder).items():
            if isinstance(value, AnyVocabulary):
                numbers_ = value.values.dtype.is_numeric()
                value = value.values.to_numpy().tobytes() if numbers_ else "\0".join(value.values.to_list()).encode()
            found.update(f" {key} ".encode())
            found.update(value if isinstance(value, bytes) else value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return found.hexdigest()[:16]
