"""Encoders from train rows: one `Fitter` a feature that owns a vocabulary, bins, or a mean."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prerank.config import Growth
from prerank.data.encoder import AnyVocabulary, Bins, Categorical, Encoder, Many, Standardise, Vector
from prerank.data.growing import GrowingVocabulary
from prerank.data.statistics import Counts, Moments, Sample
from prerank.data.values import Place, Values, as_type, flatten, numbers, row, series, value_type
from prerank.data.vocabulary import Vocabulary
from prerank.schema import Feature, Schema

Weights = NDArray[np.int64] | None


class Fitter(Protocol):
    """values [n]; keys [n] row numbers, for sampling; weights [n] how often each counts (default once)."""

    def update(self, values: pl.Series, keys: NDArray[np.int64], weights: Weights = None, place: Place = row) -> None: ...

    def get(self) -> Encoder: ...


class VocabularyFitter:
    """Counts values (of lists: those that the encoder would keep).

    growth   how the vocabulary goes on online; None: it stays as it is fitted
    """

    def __init__(self, feature: Feature, dtype: pl.DataType, growth: Growth | None = None) -> None:
        self.feature, self.counts, self.growth = feature, Counts(dtype), growth

    def update(self, values: pl.Series, keys: NDArray[np.int64], weights: Weights = None, place: Place = row) -> None:
        f = self.feature
        what = f"feature '{f.name}'"
        flat: Values = values
        if f.many:
            flat, lengths = flatten(values, what, f.separator, f.max_length, _keep(f))
            weights = None if weights is None else np.repeat(weights, lengths)
            rows = np.repeat(np.arange(len(lengths)), lengths)
            origin = place
            place = lambda i: origin(int(rows[i]))  # noqa: E731
        self.counts.update(as_type(series(flat, what), self.counts.dtype, what, place), weights)

    def get(self) -> Encoder:
        fitted = Vocabulary.fit(self.counts.get(), self.feature.min_count)
        grows = None if self.growth is None else GrowingVocabulary(fitted.values, self.growth, self.feature.name)
        return with_vocabulary(self.feature, grows or fitted)


class BinsFitter:
    """Samples numbers for their quantiles."""

    def __init__(self, feature: Feature) -> None:
        self.feature, self.sample = feature, Sample()

    def update(self, values: pl.Series, keys: NDArray[np.int64], weights: Weights = None, place: Place = row) -> None:
        self.sample.update(numbers(values, f"feature '{self.feature.name}'", place), keys, weights)

    def get(self) -> Encoder:
        return Bins(self.feature.name, self.sample.get(self.feature.bins or 0))


class StandardiseFitter:
    """Mean and deviation."""

    def __init__(self, feature: Feature) -> None:
        self.feature, self.moments = feature, Moments()

    def update(self, values: pl.Series, keys: NDArray[np.int64], weights: Weights = None, place: Place = row) -> None:
        self.moments.update(numbers(values, f"feature '{self.feature.name}'", place), weights)

    def get(self) -> Encoder:
        return Standardise(self.feature.name, *self.moments.get())


class AsIs:
    """Numbers that stay what they are."""

    def __init__(self, feature: Feature) -> None:
        self.feature = feature

    def update(self, values: pl.Series, keys: NDArray[np.int64], weights: Weights = None, place: Place = row) -> None:
        pass

    def get(self) -> Encoder:
        return Standardise(self.feature.name, 0.0, 1.0)


def fitter(feature: Feature, dtype: pl.DataType, as_is: bool = False, growth: Growth | None = None) -> Fitter | None:
    """None when nothing is to be fitted: vectors, and features that share another's vocabulary.

    dtype   of the feature's column;   as_is   a number that is not to be standardised;   growth   of its vocabulary
    """
    if feature.share is not None or feature.kind == "vector":
        return None
    if as_is:
        return AsIs(feature)
    if feature.kind == "numeric":
        return BinsFitter(feature) if feature.bins else StandardiseFitter(feature)
    return VocabularyFitter(feature, value_type(dtype), growth)


def encoders(schema: Schema, fitters: dict[str, Fitter]) -> dict[str, Encoder]:
    """All encoders in the schema's order; sharers take their owner's vocabulary."""
    found = {name: f.get() for name, f in fitters.items()}
    for f in schema.features:
        if f.kind == "vector":
            found[f.name] = Vector(f.name, f.dim or 0, f.separator)
        elif f.share is not None:
            owner = found[f.share]
            assert isinstance(owner, Categorical | Many)
            found[f.name] = with_vocabulary(f, owner.vocabulary)
    return {f.name: found[f.name] for f in schema.features}


def with_vocabulary(feature: Feature, vocabulary: AnyVocabulary) -> Encoder:
    """The encoder of an embedded feature over a given vocabulary."""
    if not feature.many:
        return Categorical(feature.name, vocabulary)
    return Many(feature.name, vocabulary, feature.max_length, _keep(feature), feature.separator)


def _keep(feature: Feature) -> Literal["first", "last"]:
    return "first" if feature.kind == "multi" else "last"
