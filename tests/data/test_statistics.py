"""Accumulators agree with the whole: counts with Counter, quantiles and moments with numpy."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prerank.data import statistics
from prerank.data.statistics import Counts, Moments, Sample

NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


def parts(values: list) -> list[list]:
    return [values[: len(values) // 3], values[len(values) // 3 :]]


@given(st.lists(st.none() | st.integers(-3, 3) | st.sampled_from([-(2**63), 2**63 - 1, 10**7]), max_size=60))
def test_counts(values: list[int | None]) -> None:
    counts = Counts(pl.Int64())
    for part in parts(values):
        counts.update(pl.Series(part, dtype=pl.Int64))
    expected = sorted(Counter(v for v in values if v is not None).items(), key=lambda vc: (-vc[1], vc[0]))
    assert counts.get().rows() == expected


def test_counts_with_weights_and_compaction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_HELD", 3)
    counts = Counts(pl.String())
    for _ in range(5):
        counts.update(pl.Series(["a", "b", "c", "d"]), np.array([1, 2, 3, 0]))
    assert counts.get().rows() == [("c", 15), ("b", 10), ("a", 5)]


@given(NUMBERS, st.integers(2, 8))
def test_bins_are_of_equal_weight(values: list[float], bins: int) -> None:
    sample = Sample()
    for part in parts(values):
        sample.update(np.array(part), np.arange(len(part)))
    edges = sample.get(bins)
    assert len(edges) <= bins - 1
    assert (np.diff(edges) > 0).all()
    ordered = sorted(values)
    wanted = [ordered[min(len(values) * i // bins, len(values) - 1)] for i in range(1, bins)]
    assert edges.tolist() == sorted({e for e in wanted if e > ordered[0]})


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=20), st.integers(2, 5))
def test_weights_are_repetitions(pairs: list[tuple[int, int]], bins: int) -> None:
    values, weights = np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs])
    weighted, repeated = Sample(), Sample()
    weighted.update(values, np.arange(len(values)), weights)
    repeated.update(np.repeat(values, weights), np.arange(weights.sum()))
    assert weighted.get(bins).tolist() == repeated.get(bins).tolist()
    a, b = Moments(), Moments()
    a.update(values, weights)
    b.update(np.repeat(values, weights))
    assert a.get() == pytest.approx(b.get())


def test_large_samples_are_uniform_and_repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_SAMPLE", 2000)

    def edges(step: int) -> np.ndarray:
        sample = Sample()
        for first in range(0, 40_000, step):
            numbers = np.arange(first, first + step)
            sample.update(numbers.astype(float), numbers)
        return sample.get(4)

    assert edges(1000) == pytest.approx([10_000, 20_000, 30_000], rel=0.1)
    assert edges(1000).tolist() == edges(10_000).tolist()


@given(NUMBERS)
def test_moments(values: list[float]) -> None:
    moments = Moments()
    for part in [*parts(values), [float("nan"), float("inf")]]:
        moments.update(np.array(part))
    mean, deviation = moments.get()
    assert mean == pytest.approx(np.mean(values), abs=1e-6)
    expected = np.std(values)
    if expected > 1e-6:
        assert deviation == pytest.approx(expected, rel=1e-6)


def test_moments_of_nothing_and_of_a_constant() -> None:
    assert Moments().get() == (0.0, 1.0)
    constant = Moments()
    constant.update(np.full(10, 0.1))
    assert constant.get() == (pytest.approx(0.1), 1.0)
    assert Sample().get(5).tolist() == []
