"""RCG's user tower: what it reads of a list, and what it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from prerank import build
from prerank.config import ConfigError, Model
from tests.conftest import SIZES, small_batch, small_model, small_schema


def test_padding_of_a_history_is_not_read() -> None:
    """Two users who differ in nothing but the place that padding stands for say the same."""
    model, batch = small_model("rcg").eval(), small_batch()
    said = model.encode("user", batch.user).groups[0]
    with torch.no_grad():
        offset = model.embeddings.offset["history"]
        model.embeddings.tables["6"][offset] += torch.randn(6)  # the row of padding
    assert torch.equal(model.encode("user", batch.user).groups[0], said)


def test_the_history_is_read_value_by_value_with_the_items_own_vectors() -> None:
    model, batch = small_model("rcg").eval(), small_batch()
    said = model.encode("user", batch.user).groups[0]
    turned = replace(batch, user={**batch.user, "history": batch.user["history"].flip(1)})
    full = (batch.user["history"] != 0).all(dim=1)
    moved = (model.encode("user", turned.user).groups[0] - said).abs().flatten(1).amax(dim=1) > 1e-6
    assert full.any()
    assert moved[full].all()  # a mean would not see the order; places do
    item = int(batch.user["history"][full][0, 0])
    with torch.no_grad():
        model.embeddings.tables["6"][model.embeddings.offset["item_id"] + item] += torch.randn(6)  # a constant would be normalised away
    holds = (batch.user["history"] == item).any(dim=1)
    changed = (model.encode("user", batch.user).groups[0] - said).abs().flatten(1).amax(dim=1) > 1e-6
    assert torch.equal(changed, holds)


def test_pooling_of_the_users_lists_is_not_built() -> None:
    names = [name for name, _ in small_model("rcg").named_parameters()]
    assert not [n for n in names if "attention.history" in n]
    assert [n for n, _ in small_model("dssm").named_parameters() if "attention.history" in n]


def test_a_user_with_an_empty_history_is_finite() -> None:
    model, batch = small_model("rcg").eval(), small_batch()
    empty = {**batch.user, "history": torch.zeros_like(batch.user["history"])}
    assert torch.isfinite(model.encode("user", empty).groups[0]).all()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"attention_heads": 4}, "model 'rcg': attention heads: must divide the width of a token, 6; got 4"),
        ({"layers": 0}, "model 'rcg': layers: must be at least 1; got 0"),
        ({"head": 2}, r"model 'rcg': unknown option 'head'; did you mean 'hidden'\?|model 'rcg': unknown option 'head'"),
    ],
)
def test_wrong_options_are_told(raw: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build.model(Model.model_validate({"name": "rcg", **raw}), small_schema(), SIZES)
