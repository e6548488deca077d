from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from prerank.rankers.cold import cold
from prerank.rankers.ensemble import Ensemble, fit_weights
from prerank.rankers.linear import lr
from prerank.rankers.mlp import mlp
from prerank.towers import dssm
from tests.conftest import SIZES, small_batch, small_schema


def world(seed: int, models: int, rows: int = 400, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy copies of what decides the labels, some on another scale."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 1.5, rows)
    labels = (rng.random(rows) < 1 / (1 + np.exp(-truth))).astype(float)
    scales = rng.uniform(0.3, 3, models)[:, None]
    return scales * (truth + noise * rng.normal(size=(models, rows)) * rng.uniform(0.2, 2, models)[:, None]), labels


def loss(w: np.ndarray, z: np.ndarray, y: np.ndarray) -> float:
    p = 1 / (1 + np.exp(-(w @ z)))
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))


@given(st.integers(0, 10_000), st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_no_other_solver_finds_better_weights(seed: int, models: int) -> None:
    z, y = world(seed, models)
    w = fit_weights(z, y)
    assert w.min() >= 0
    assert w.sum() == pytest.approx(1)
    oracle = minimize(loss, np.full(models, 1 / models), (z, y), method="SLSQP", bounds=[(0, 1)] * models,
                      constraints={"type": "eq", "fun": lambda v: v.sum() - 1}, options={"ftol": 1e-12, "maxiter": 500})  # fmt: skip
    assert loss(w, z, y) <= oracle.fun + 1e-9
    assert loss(w, z, y) <= min(loss(np.eye(models)[m], z, y) for m in range(models)) + 1e-12


def test_nearly_equal_members_share_or_not_but_are_as_good() -> None:
    z, y = world(0, 2)
    z = np.concatenate([z, z + 1e-7, z])
    assert loss(fit_weights(z, y), z, y) == pytest.approx(loss(fit_weights(z[:2], y), z[:2], y), abs=1e-7)


def test_extreme_logits_stay_finite() -> None:
    z, y = world(1, 3)
    for scale in (0.0, 1e-6, 1e4, 1e8):
        w = fit_weights(z * scale, y)
        assert w.min() >= 0
        assert w.sum() == pytest.approx(1)


def test_a_member_that_knows_nothing_gets_nothing() -> None:
    z, y = world(2, 1, noise=0.0)
    coin = np.random.default_rng(5).normal(size=len(y)) * 3
    assert fit_weights(np.stack([z[0] / np.abs(z[0]).max(), coin]), y)[1] < 0.05


@pytest.mark.parametrize(
    ("z", "y", "message"),
    [
        (np.zeros((2, 3)), np.zeros(4), r"logits must be \[models, rows\] and labels \[rows\]; got \[2, 3\] and \[4\]"),
        (np.zeros((2, 0)), np.zeros(0), "needs at least one row; got none"),
        (np.array([[0.0, 1.0], [np.nan, 0.0]]), np.array([0.0, 1.0]), "logits must be finite; those of model 1 are not"),
        (np.zeros((1, 2)), np.array([0.0, 3.0]), r"labels must lie in \[0, 1\]; they go from 0 to 3"),
    ],
)
def test_wrong_input(z: np.ndarray, y: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=f"fit_weights: {message}"):
        fit_weights(z, y)


def test_the_module_adds_logits_and_lays_hidden_side_by_side() -> None:
    schema, batch = small_schema(("a", "b")), small_batch(lists=6, candidates=7, objectives=2)
    members = [mlp(schema, SIZES, hidden=(5,)), lr(schema, SIZES), dssm(schema, SIZES, hidden=(6,), width=4),
               cold(schema, SIZES, hidden=(4,))]  # fmt: skip
    weights = torch.tensor([[0.4, 0.1], [0.3, 0.2], [0.2, 0.3], [0.1, 0.4]])
    model = Ensemble(members, weights).eval()
    with torch.no_grad():
        got, parts = model(batch), [m(batch) for m in members]
    expected = sum(w * p.logits for w, p in zip(weights, parts, strict=True))
    torch.testing.assert_close(got.logits, expected)
    torch.testing.assert_close(got.hidden, torch.cat([parts[0].hidden, parts[3].hidden], dim=2))
    assert Ensemble(members[1:3], weights[:2])(batch).hidden is None


def test_weights_of_another_number_are_refused() -> None:
    with pytest.raises(ValueError, match="weights: must be one a member; got 2 for 1 members"):
        Ensemble([lr(small_schema(), SIZES)], torch.ones(2))
