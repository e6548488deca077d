"""Calibrators against scikit-learn and against what they promise."""

import json

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from prerank.serving.calibration import CalibrationError, Isotonic, Platt, load, sigmoid


def planted(n=20_000, a=0.5, b=-1.0, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(1, 3, n)
    return z, (rng.random(n) < 1 / (1 + np.exp(-(a * z + b)))).astype(np.float32)


def test_platt_finds_the_planted_line_and_agrees_with_scikit_learn():
    z, y = planted()
    fitted = Platt.fit(z, y)
    reference = LogisticRegression(C=1e9, tol=1e-10).fit(z[:, None], y)
    assert fitted.a == pytest.approx(reference.coef_[0, 0], rel=2e-3)
    assert fitted.b == pytest.approx(reference.intercept_[0], rel=2e-3)
    assert fitted(z).mean() == pytest.approx(y.mean(), abs=1e-3)


def test_isotonic_mends_what_a_line_cannot_and_agrees_with_scikit_learn():
    rng = np.random.default_rng(1)
    z = rng.normal(0, 2, 5000)
    y = (rng.random(5000) < np.where(z < 0, 0.1, 0.6)).astype(np.float32)
    fitted = Isotonic.fit(z, y)
    reference = IsotonicRegression(y_min=1e-6, y_max=1 - 1e-6, out_of_bounds="clip").fit(z, y)
    np.testing.assert_allclose(fitted.probabilities, reference.predict(fitted.logits), atol=1e-9)  # at each block's middle
    low, high = fitted(np.array([-2.0, 2.0]))
    assert low == pytest.approx(0.1, abs=0.03)
    assert high == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize("kind", [Platt, Isotonic])
def test_never_decreasing_inside_0_and_1_and_the_same_after_json(kind):
    z, y = planted(3000)
    fitted = kind.fit(z, y)
    grid = np.linspace(-1000, 1000, 4001)
    p = fitted(grid)
    assert (np.diff(p) >= 0).all()
    assert (p >= 0).all()
    assert (p <= 1).all()
    again = load(json.loads(json.dumps(fitted.state())))
    assert (again(grid) == p).all()


def test_separable_labels_stay_finite():
    fitted = Platt.fit(np.array([-1.0, -2.0, 1.0, 2.0]), np.array([0, 0, 1, 1]))
    assert 0 < fitted(np.array([-1.0]))[0] < 0.5 < fitted(np.array([1.0]))[0] < 1


@pytest.mark.parametrize("kind", [Platt, Isotonic])
@pytest.mark.parametrize(
    ("z", "y", "message"),
    [([0, 1], [1, 1], "both classes"), ([0, np.nan], [0, 1], "must be finite, 1 of 2"), ([0, 1, 2], [0, 1], "equally many")],
)
def test_rows_that_cannot_be_fitted(kind, z, y, message):
    with pytest.raises(CalibrationError, match=message):
        kind.fit(np.array(z, float), np.array(y, float))


def test_backward_logits_are_refused():
    z, y = planted()
    with pytest.raises(CalibrationError, match="must rise with the labels"):
        Platt.fit(-z, y)


def test_unknown_state():
    with pytest.raises(CalibrationError, match="kind must be one of platt, isotonic; got 'beta'"):
        load({"kind": "beta"})
    with pytest.raises(CalibrationError, match="holds other keys"):
        load({"kind": "platt", "a": 1.0, "c": 2.0})


def test_sigmoid_far_out():
    assert sigmoid(np.array([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.5, 1.0]
