from __future__ import annotations

import numpy as np

from tests.conftest import small_batch
from tests.rankers import oracle
from tests.rankers.conftest import small_ranker


def test_equation_3() -> None:
    model, batch = small_ranker("wide-deep", ("click", "buy")), small_batch()
    logits, hidden, wide = oracle.at_work(model, batch)
    deep = oracle.mlp(model.network.deep, oracle.fields(model, batch).reshape(24, -1))
    np.testing.assert_allclose(hidden, deep, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits, wide + oracle.linear(model.network.output, deep), rtol=1e-4, atol=1e-5)
    assert model.network.output.bias is None  # the wide part has one
