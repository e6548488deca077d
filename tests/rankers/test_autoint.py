"""AutoInt against its equations, one field and one head at a time."""

from __future__ import annotations

import numpy as np
import pytest

from prerank.layers import Interacting
from prerank.rankers import autoint
from tests.conftest import SIZES, small_batch, small_schema
from tests.rankers import oracle
from tests.rankers.conftest import small_ranker


def interacting(layer: Interacting, e: np.ndarray) -> np.ndarray:
    """[P, F, n] -> [P, F, heads * K]: equations 5 to 8."""
    q, k, v, *residual = (w for w in oracle.weights(layer).values())  # [heads * K, n]
    width = len(q) // layer.heads
    out = np.zeros((*e.shape[:2], len(q)))
    for p, row in enumerate(e):
        for m, field in enumerate(row):
            for h in range(layer.heads):
                own = slice(h * width, (h + 1) * width)
                scores = np.exp([(q[own] @ field) @ (k[own] @ other) for other in row])
                out[p, m, own] = sum(a * (v[own] @ other) for a, other in zip(scores / scores.sum(), row, strict=True))
            if residual:
                out[p, m] += residual[0] @ field
    return np.maximum(out, 0)


@pytest.mark.parametrize("name", ["autoint", "autoint-plus"])
def test_against_the_equations(name: str) -> None:
    model, batch = small_ranker(name, ("click", "buy")), small_batch()
    model.embeddings.tables["6"].data.normal_()
    logits, hidden, _ = oracle.at_work(model, batch)
    e = fields = oracle.fields(model, batch)
    for layer in model.network.layers:
        e = interacting(layer, e)
    expected = e.reshape(24, -1)
    if name == "autoint-plus":
        expected = np.concatenate([expected, oracle.mlp(model.network.deep, fields.reshape(24, -1))], axis=1)
    np.testing.assert_allclose(hidden, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits, oracle.linear(model.network.output, expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("option", ["layers", "heads", "head_width"])
def test_wrong_options(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}: must be at least 1; got 0"):
        autoint(small_schema(), SIZES, **{option: 0})
