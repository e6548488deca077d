from __future__ import annotations

import numpy as np
import pytest
import torch

from prerank.rankers.cold import cold
from prerank.rankers.selection import select
from tests.conftest import SIZES, small_batch, small_schema


def test_against_the_equations() -> None:
    """Sigmoid gates a field, crosses as products, two layers."""
    torch.manual_seed(0)
    cross = [["user_id", "item_id"], ["hour", "price"]]
    model = cold(small_schema(), SIZES, hidden=(5, 4), norm=False, cross=cross).eval()
    net, fields = model.network, torch.randn(6, 8, 6)  # user_id age history hour | item_id genres price picture
    w = {n: p.detach().numpy() for n, p in net.named_parameters()}
    e = fields.numpy()
    e = np.concatenate([e, e[:, [0]] * e[:, [4]], e[:, [3]] * e[:, [6]]], axis=1)  # [6, 10, 6]
    s = 1 / (1 + np.exp(-(e.reshape(6, 60) @ w["gate.excite.weight"].T + w["gate.excite.bias"])))
    x = (s[:, :, None] * e).reshape(6, 60)
    for layer in range(2):
        x = np.maximum(x @ w[f"deep.layers.{layer}.linear.weight"].T + w[f"deep.layers.{layer}.linear.bias"], 0)
    with torch.no_grad():
        logits, hidden = net(fields)
    np.testing.assert_allclose(hidden.numpy(), x, atol=1e-5)
    np.testing.assert_allclose(logits.numpy(), x @ w["output.weight"].T + w["output.bias"], atol=1e-5)


def test_what_is_not_kept_is_not_stored() -> None:
    whole, small = cold(small_schema(), SIZES), cold(small_schema(), SIZES, keep=["age", "price"])
    assert small.network.names == ("age", "price")
    assert set(small.embeddings.table_of) == {"age", "price"}
    assert sum(p.numel() for p in small.embeddings.parameters()) < sum(p.numel() for p in whole.embeddings.parameters()) / 4
    assert small(small_batch()).logits.shape == (24, 1, 1)


def test_a_kept_cross_looks_up_its_factors_and_no_more() -> None:
    model = cold(small_schema(), SIZES, cross=[["user_id", "genres"]], keep=["user_id*genres", "hour"])
    assert model.network.names == ("hour", "user_id*genres")
    assert set(model.embeddings.vocabulary) == {"user_id", "genres"}
    fields = torch.randn(3, 3, 6)  # user_id hour | genres
    expected = torch.stack([fields[:, 1], fields[:, 0] * fields[:, 2]], dim=1)
    assert torch.equal(model.network.select(fields), expected)


def test_a_kept_feature_may_share_the_table_of_one_that_is_gone() -> None:
    model = cold(small_schema(), SIZES, keep=["history", "price"])  # history reads item_id's table
    assert torch.isfinite(model(small_batch()).logits).all()


def test_the_side_of_every_field() -> None:
    chosen = select(small_schema(), None, [["age", "price"]])
    assert chosen.sides == ("user",) * 4 + ("item",) * 4 + ("both",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": ["age", "prise"]}, r"keep: 'prise' is no field; did you mean 'price'\?"),
        ({"keep": ["age", "hour"]}, r"keep: must leave at least one field of the item; got \['age', 'hour'\]"),
        ({"keep": []}, r"keep: must leave at least one field of the user; got \[\]"),
        ({"cross": [["age"]]}, r"cross: each must be a user field and an item field; got \['age'\]"),
        ({"cross": [["price", "age"]]}, "cross: 'price' is no user field"),
        ({"hidden": []}, "hidden: must name the width of at least one layer; got none"),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cold(small_schema(), SIZES, **options)
