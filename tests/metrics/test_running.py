"""Running metrics against the plain ones on the last rows; the alarm against a loss that rises and one that does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prerank.metrics import auc, calibration_ratio, logloss, sigmoid
from prerank.metrics.running import PageHinkley, Running


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(2, 60), st.integers(0, 5))
def test_it_measures_the_last_rows(sizes: list[int], window: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    running = Running(("a", "b"), window)
    z, y = rng.normal(size=(sum(sizes), 2)).astype(np.float32), rng.integers(0, 2, (sum(sizes), 2))
    at = 0
    for n in sizes:
        running.add(z[at : at + n], y[at : at + n])
        at += n
    found = running.measure()
    for t, name in enumerate(("a", "b")):
        last, labels = z[-window:, t], y[-window:, t]
        if 0 < labels.sum() < len(labels):
            assert found[name]["auc"] == pytest.approx(auc(last, labels))
            assert found[name]["logloss"] == pytest.approx(logloss(sigmoid(last), labels))
            assert found[name]["calibration"] == pytest.approx(calibration_ratio(sigmoid(last), labels))
        else:
            assert np.isnan(found[name]["auc"])


def test_it_goes_on_from_its_arrays() -> None:
    rng = np.random.default_rng(0)
    one, other = Running(("a",), 50), Running(("a",), 50)
    one.add(rng.normal(size=80), rng.integers(0, 2, 80))
    other.load({k: np.array(v) for k, v in one.arrays().items()})
    z, y = rng.normal(size=30), rng.integers(0, 2, 30)
    one.add(z, y)
    other.add(z, y)
    assert one.measure() == other.measure()
    with pytest.raises(ValueError, match="window: must be"):
        Running(("a",), 10).load(one.arrays())
    with pytest.raises(ValueError, match="at least 2 rows; got 1"):
        Running(("a",), 1)


def test_the_alarm_hears_a_rise_and_not_noise() -> None:
    rng = np.random.default_rng(0)
    quiet = PageHinkley(slack=0.1, limit=50)
    assert not any(quiet.add(x) for x in rng.normal(0.5, 0.1, 5000))
    assert not any(quiet.add(x) for x in rng.normal(0.3, 0.1, 500))  # it fell: good news
    risen = PageHinkley(slack=0.1, limit=50)
    [risen.add(x) for x in rng.normal(0.5, 0.1, 500)]
    heard = [risen.add(x) for x in rng.normal(0.6, 0.1, 500)]
    assert any(heard[:150])
    again = PageHinkley(slack=0.1, limit=50)
    again.load(risen.state())
    values = rng.normal(0.9, 0.1, 400).tolist()
    assert [again.add(x) for x in values] == [risen.add(x) for x in values]
