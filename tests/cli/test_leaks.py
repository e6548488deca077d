import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from prerank.cli.leaks import Sample, column_auc

RNG = np.random.default_rng(5)
N = 20_000
LABEL = RNG.random(N) < 0.3


def test_noise_tells_nothing():
    columns = [
        RNG.normal(size=N),
        RNG.integers(0, 9, N),
        RNG.integers(0, 5000, N),
        RNG.integers(0, 9, N).astype(str),
        np.zeros(N),
        np.arange(N),
    ]
    for column in columns:
        assert column_auc(pl.Series(column), LABEL) == pytest.approx(0.5, abs=0.015)


def test_an_id_that_occurs_once_tells_nothing():
    assert column_auc(pl.Series(np.arange(N).astype(str)), LABEL) == 0.5


def test_a_numeric_column_is_its_own_score_in_either_direction():
    x = RNG.normal(size=N) + LABEL
    assert column_auc(pl.Series(x), LABEL) == pytest.approx(roc_auc_score(LABEL, x))
    assert column_auc(pl.Series(-x), LABEL) == pytest.approx(roc_auc_score(LABEL, x))


def test_the_label_itself_in_every_disguise():
    y = LABEL.astype(int)
    for values in (
        pl.Series(y),
        pl.Series(LABEL),
        pl.Series(1 - y),
        pl.Series(np.where(LABEL, "won", "lost")),
        pl.Series(np.where(LABEL, 3, RNG.choice([1, 5], N))),  # not monotone
        pl.Series([[1, 2] if v else [2, 1] for v in y]),
        pl.Series([[1] * (v + 1) for v in y]),
        pl.Series([None if v else 7 for v in y]),  # missing is a value too
        pl.Series([None if v else "7" for v in y]),
    ):
        assert column_auc(values, LABEL) == pytest.approx(1.0, abs=1e-3), values


def test_nan_and_missing_numbers_are_the_mean():
    x = np.where(RNG.random(N) < 0.5, np.nan, RNG.normal(size=N))
    assert column_auc(pl.Series(x), LABEL) == pytest.approx(0.5, abs=0.015)


def test_one_class_tells_nothing():
    assert column_auc(pl.Series([1.0, 2.0]), np.array([True, True])) == 0.5


@pytest.mark.parametrize("sizes", [[10], [7, 7, 7, 7, 7], [100, 1, 50], [1] * 200, [1000]])
def test_the_sample_is_every_nth_row(sizes):
    sample, start = Sample(size=10), 0
    for n in sizes:
        sample.add(pl.DataFrame({"x": np.arange(start, start + n)}))
        start += n
    held = sample.get()["x"].to_numpy()
    np.testing.assert_array_equal(held, np.arange(0, start, sample.stride))
    assert len(held) <= 20
    assert len(held) > 10 or sample.stride == 1


def test_an_empty_sample():
    assert Sample().get() is None
