"""The factorisation machine is two towers: with equal weights it says what the ranker `fm` says."""

from __future__ import annotations

import pytest
import torch

from prerank import build
from prerank.config import ConfigError, Model
from tests.conftest import SIZES, small_batch, small_schema


@pytest.mark.parametrize("objectives", [("like",), ("like", "share")])
@pytest.mark.parametrize("id_head", [None, 5])
def test_equals_the_ranker(objectives: tuple[str, ...], id_head: int | None) -> None:
    torch.manual_seed(0)
    schema = small_schema(objectives).model_copy(update={"width": 4})
    features = [f.model_copy(update={"width": None, "pooling": "mean"}) for f in schema.features if f.embedded]
    schema = schema.model_copy(update={"features": tuple(features)})
    ranker = build.model(Model(name="fm", id_head=id_head), schema, SIZES)
    towers = build.model(Model(name="two_tower_fm", width=4, id_head=id_head), schema, SIZES)
    number = len(objectives)
    with torch.no_grad():
        for part in ranker.wide.parameters():
            part.normal_()
        parts = (m.parameters() for m in (towers.embeddings, ranker.embeddings, ranker.wide.weights))
        for weight, vectors, linear in zip(*parts, strict=True):
            shape = vectors.shape[:-1]
            weight.copy_(torch.cat([vectors.reshape(*shape, number, 4), linear.reshape(*shape, number, 1)], dim=-1).reshape(weight.shape))
        towers.head.bias.copy_(ranker.wide.bias)
        if id_head:
            towers.user.ids.ids.load_state_dict(ranker.product.user_ids.state_dict())
            towers.item.ids.ids.load_state_dict(ranker.product.item_ids.state_dict())
    batch = small_batch(1, lists=6, candidates=4, objectives=number)
    said, expected = towers.eval()(batch).logits, ranker.eval()(batch).logits
    assert expected.abs().max() > 0.5
    torch.testing.assert_close(said[batch.where], expected[batch.where], rtol=1e-5, atol=1e-5)


def test_a_width_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"two_tower_fm.*width: must be at least 1; got 0"):
        build.model(Model(name="two_tower_fm", width=0), small_schema(), SIZES)
