from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from prerank.losses import LossTerm, Objective, logloss
from prerank.losses.complexity import ComplexityTerm
from prerank.rankers.fscd import costs, fscd
from prerank.rankers.mlp import mlp
from tests.conftest import SIZES, small_batch, small_schema


def test_costs_are_the_weighted_measures() -> None:
    """Fields user_id age history hour | item_id genres price picture, D = 6."""
    lookups = np.array([1, 1, 5, 1, 1, 3, 1, 1]) / 5
    width = np.array([6, 4, 6, 1, 6, 6, 6, 7]) / 7
    keys = np.log([30, 9, 40, 1, 40, 12, 8, 1]) / math.log(40)
    expected = 0.5 * lookups + 2 * width + 3 * keys
    np.testing.assert_allclose(costs(small_schema(), SIZES, (0.5, 2, 3)).numpy(), expected, rtol=1e-6)


def test_in_eval_mode_fields_are_weighed_by_their_probabilities() -> None:
    torch.manual_seed(0)
    model = fscd(small_schema(), SIZES, hidden=(5,), norm=False).eval()
    net, fields = model.network, torch.randn(4, 8, 6)
    delta = torch.linspace(0.05, 0.95, 8)
    with torch.no_grad():
        net.gate.logits.copy_(torch.logit(delta))
        logits, hidden = net(fields)
    w = {n: p.detach().numpy() for n, p in net.named_parameters()}
    x = (fields.numpy() * delta.numpy()[:, None]).reshape(4, 48)
    x = np.maximum(x @ w["deep.layers.0.linear.weight"].T + w["deep.layers.0.linear.bias"], 0)
    np.testing.assert_allclose(hidden.numpy(), x, atol=1e-5)
    np.testing.assert_allclose(logits.numpy(), x @ w["output.weight"].T + w["output.bias"], atol=1e-5)


def test_the_term_is_the_expected_cost_and_moves_only_the_gates() -> None:
    model = fscd(small_schema(), SIZES, hidden=(5,), initial=0.7, complexity=(1, 0, 2))
    value = ComplexityTerm()(small_batch(), model(small_batch()))
    assert value.item() == pytest.approx(0.7 * costs(small_schema(), SIZES, (1, 0, 2)).sum().item(), rel=1e-5)
    value.backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == {"network.gate.logits"}


def test_a_model_without_gates_is_refused_by_the_term() -> None:
    for model in (mlp(small_schema(), SIZES), fscd(small_schema(), SIZES, keep=["age", "price"])):
        with pytest.raises(ValueError, match="objective 'complexity': needs a model that learns which fields to keep"):
            ComplexityTerm()(small_batch(), model(small_batch()))


def test_it_gives_up_the_fields_that_say_nothing_and_the_dear_ones_first() -> None:
    """Only `age` and `price` decide the label; a stronger prior leaves fewer of the others."""
    torch.manual_seed(0)
    model = fscd(small_schema(), SIZES, hidden=(16,), initial=0.8)
    objective = Objective([LossTerm("logloss", logloss), ComplexityTerm(weight=0.03)])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.06)
    for step in range(120):
        batch = small_batch(seed=step, lists=96, users=27, items=37)
        age, price = batch.user["age"][batch.user_index], batch.item["price"][batch.item_index[:, 0]]
        batch.labels[:, 0, 0] = (age + price > 10).float()
        optimizer.zero_grad()
        objective(batch, model(batch))[0].backward()
        optimizer.step()
    delta = dict(zip(model.network.names, model.network.gate.probabilities().tolist(), strict=True))
    others = [p for n, p in delta.items() if n not in ("age", "price")]
    assert min(delta["age"], delta["price"]) > 0.8
    assert max(others) < 0.5
    assert delta["history"] < delta["hour"]  # the dearest and the cheapest of what says nothing


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"initial": 1.0}, {"complexity": (1.0, 1.0)}, {"complexity": (1.0, -1.0, 0.0)}, {"keep": ["agee"]}]
)
def test_wrong_options(options: dict) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: "):
        fscd(small_schema(), SIZES, **options)
