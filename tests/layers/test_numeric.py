from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from prerank.batch import Representation
from prerank.layers import Embeddings
from prerank.layers.numeric import SKIP, AutoDis, dense
from prerank.schema import Feature, Schema
from prerank.serving.tape import record


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_autodis_is_its_formula(temperature: float) -> None:
    torch.manual_seed(0)
    layer = AutoDis(5, 3, temperature, std=1.0).double()
    x = np.linspace(-3, 3, 7)
    w, mix, meta = (p.detach().numpy() for p in (layer.project.weight, layer.mix.weight, layer.meta))
    for value, found in zip(x, layer(torch.from_numpy(x)[:, None]), strict=True):
        h = np.array([v * value if v * value > 0 else 0.01 * v * value for v in w[:, 0]])
        s = np.array([mix[k] @ h + SKIP * h[k] for k in range(5)]) / temperature
        shares = np.exp(s) / np.exp(s).sum()
        np.testing.assert_allclose(found.detach().numpy(), sum(shares[k] * meta[k] for k in range(5)), rtol=1e-12)


def test_a_missing_number_is_the_average_of_the_meta_embeddings() -> None:
    layer = AutoDis(5, 3)
    torch.testing.assert_close(layer(torch.zeros(1, 1))[0], layer.meta.mean(dim=0))


def test_a_low_temperature_takes_one_bin() -> None:
    torch.manual_seed(0)
    layer = AutoDis(5, 3, temperature=1e-4, std=1.0)
    found = layer(torch.tensor([[1.5], [-1.5]]))
    for row in found:
        assert min((row - m).abs().max().item() for m in layer.meta) < 1e-5
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("size", [1e4, -1e4, 3e38])
def test_extreme_numbers_stay_finite(size: float) -> None:
    x = torch.tensor([[size]], requires_grad=True)
    layer = AutoDis(16, 3, temperature=0.01)
    layer(x).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in (x, *layer.parameters()))


def test_it_learns_what_a_line_cannot() -> None:
    """A bump: high in the middle, low on both sides."""
    torch.manual_seed(0)
    x = torch.linspace(-2, 2, 200)[:, None]
    y = (x.abs() < 0.7).float()
    errors = {}
    for name, encoder in (("line", nn.Linear(1, 4)), ("autodis", AutoDis(8, 4))):
        model = nn.Sequential(encoder, nn.Linear(4, 1))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(500):
            optimizer.zero_grad()
            loss = nn.functional.binary_cross_entropy_with_logits(model(x), y)
            loss.backward()
            optimizer.step()
        errors[name] = loss.item()
    assert errors["line"] > 0.6
    assert errors["autodis"] < 0.2


def schema(**options: object) -> Schema:
    features = [{"name": "x", "side": "user", "kind": "numeric", **options}, {"name": "a", "side": "user"}]
    return Schema.model_validate({"features": features, "user_id": "u", "item_id": "i", "width": 3})


def test_embeddings_use_it_where_the_schema_says_so_and_every_parameter_learns() -> None:
    layer = Embeddings(schema(encoding="autodis", meta_embeddings=7, temperature=0.5), {"a": 5, "u": 4, "i": 4})
    columns = {"x": torch.tensor([0.3, -1.0]), "a": torch.tensor([3, 4], dtype=torch.int32)}
    auto = layer.dense["x"]
    assert isinstance(auto, AutoDis)
    assert (auto.meta.shape, auto.temperature) == ((7, 3), 0.5)
    fields = layer("user", columns)
    torch.testing.assert_close(fields[:, 0], auto(columns["x"][:, None]))
    fields.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in auto.parameters())
    assert isinstance(Embeddings(schema(), {"a": 5, "u": 4, "i": 4}).dense["x"], nn.Linear)


def test_a_line_reads_a_vector_too() -> None:
    made = dense(Feature(name="v", side="item", kind="vector", dim=5), 3, 0.05)
    assert made(torch.zeros(2, 5)).shape == (2, 3)


def test_it_can_be_played_from_a_tape() -> None:
    layer = Embeddings(schema(encoding="autodis"), {"a": 5, "u": 4, "i": 4}).eval()
    samples = {"x": torch.randn(6), "a": torch.randint(3, 5, (6,), dtype=torch.int32)}
    assert record(lambda c: Representation((layer("user", c),)), samples) is not None
