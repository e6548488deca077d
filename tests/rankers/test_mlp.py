"""The single-tower MLP, and the id head that any ranker may have beside it."""

from __future__ import annotations

import numpy as np

from tests.conftest import small_batch
from tests.rankers import oracle
from tests.rankers.conftest import small_ranker


def test_it_is_an_mlp_over_all_fields() -> None:
    model, batch = small_ranker("mlp", ("click", "buy")), small_batch()
    logits, hidden, _ = oracle.at_work(model, batch)
    deep = oracle.mlp(model.network.deep, oracle.fields(model, batch).reshape(24, -1))
    np.testing.assert_allclose(hidden, deep, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits, oracle.linear(model.network.output, deep), rtol=1e-4, atol=1e-5)


def test_the_id_head_is_matrix_factorisation() -> None:
    model, batch = small_ranker("lr-id-head", ("click", "buy")), small_batch(lists=6, candidates=3)
    for p in model.product.parameters():
        p.data.normal_()
    with_ids = model(batch).logits.detach().numpy()
    product = oracle.weights(model.product)
    model.product = None
    without = model(batch).logits.detach().numpy()
    for b in range(6):
        for c in range(3):
            if batch.where[b, c]:
                u = int(batch.user["user_id"][batch.user_index[b]])
                i = int(batch.item["item_id"][batch.item_index[b, c]])
                p, q = product["user_ids.table"][u].reshape(2, 5), product["item_ids.table"][i].reshape(2, 5)
                expected = (p * q).sum(axis=1) + product["user_ids.bias"][u] + product["item_ids.bias"][i]
                np.testing.assert_allclose(with_ids[b, c] - without[b, c], expected, rtol=1e-4, atol=1e-5)
            else:
                assert (with_ids[b, c] == 0).all()
