"""DCN and DCN-V2 against their equations, row by row and expert by expert."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prerank.layers import Cross
from prerank.rankers import Ranker, dcnv2
from tests.conftest import SIZES, small_batch, small_schema
from tests.rankers import oracle
from tests.rankers.conftest import small_ranker


def crossed(cross: Cross, x0: np.ndarray) -> np.ndarray:
    """[P, n] -> [P, n]: each layer's equation on one row at a time."""
    rows = []
    for row in x0:
        x = row
        for layer in cross.layers:
            w = oracle.weights(layer)
            if "weight" in w:  # DCN: x0 x' w + b + x
                x = np.outer(row, x) @ w["weight"] + w["bias"] + x
            elif "linear.weight" in w:  # DCN-V2: x0 * (W x + b) + x
                x = row * (w["linear.weight"] @ x + w["linear.bias"]) + x
            else:  # mixture of low-rank experts
                count = len(w["c"])
                u, v = np.split(w["u.weight"], count, axis=1), np.split(w["v.weight"], count)  # [n, r], [r, n] an expert
                experts = [row * (u[i] @ np.tanh(w["c"][i] @ np.tanh(v[i] @ x)) + w["u.bias"]) for i in range(count)]
                scores = np.exp(w["gate.weight"] @ x) if "gate.weight" in w else np.ones(1)
                x = sum(g * e for g, e in zip(scores / scores.sum(), experts, strict=True)) + x
        rows.append(x)
    return np.stack(rows)


def drawn(name: str) -> Ranker:
    """Weights and embeddings large enough that every term matters; biases are not 0."""
    model = small_ranker(name, ("click", "buy"))
    for p in (*model.network.cross.parameters(), *model.embeddings.tables.values()):
        p.data.normal_(0.0, 0.3)
    return model


@pytest.mark.parametrize("name", ["dcn", "dcnv2", "dcnv2-mixture-id-head"])
def test_cross_and_deep_side_by_side(name: str) -> None:
    model, batch = drawn(name), small_batch()
    logits, hidden, beside = oracle.at_work(model, batch)
    x = oracle.fields(model, batch).reshape(24, -1)
    expected = np.concatenate([crossed(model.network.cross, x), oracle.mlp(model.network.deep, x)], axis=1)
    np.testing.assert_allclose(hidden, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits, oracle.linear(model.network.output, expected) + beside, rtol=1e-4, atol=1e-4)


def test_deep_on_cross() -> None:
    model, batch = drawn("dcnv2-stacked-low-rank"), small_batch()
    assert model.network.cross.layers[0].gate is None
    logits, hidden, _ = oracle.at_work(model, batch)
    expected = oracle.mlp(model.network.deep, crossed(model.network.cross, oracle.fields(model, batch).reshape(24, -1)))
    np.testing.assert_allclose(hidden, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits, oracle.linear(model.network.output, expected), rtol=1e-4, atol=1e-4)


def test_layer_l_makes_products_of_degree_l_plus_1() -> None:
    """Scaling the input by s scales a bias-free cross network's highest term by s^(L+1): finite differences find the degree."""
    cross = small_ranker("dcnv2").network.cross.double()
    for layer in cross.layers:
        layer.linear.bias.data.zero_()
    x = torch.randn(1, 48, dtype=torch.float64)
    values = torch.stack([cross(s * x)[0] for s in torch.arange(6, dtype=torch.float64)])
    for order in range(5):
        values = values.diff(dim=0)
        assert (values.abs().max() < 1e-9) == (order + 1 > 3), order  # two layers: degree 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"structure": "beside"}, "structure: must be one of parallel, stacked; got 'beside'"),
        ({"experts": 4}, "experts: a mixture needs low_rank; got experts 4 without it"),
        ({"low_rank": 0}, "low_rank: must be at least 1; got 0"),
        ({"low_rank": 4, "experts": 0}, "experts: must be at least 1; got 0"),
        ({"layers": 0}, "layers: must be at least 1; got 0"),
        ({"hidden": []}, "hidden: must name the width of at least one layer; got none"),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dcnv2(small_schema(), SIZES, **options)
