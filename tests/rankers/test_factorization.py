"""FM and DeepFM against their sums over pairs of fields, written out."""

from __future__ import annotations

import itertools

import numpy as np

from tests.conftest import small_batch
from tests.rankers import oracle
from tests.rankers.conftest import small_ranker


def products(vectors: np.ndarray) -> np.ndarray:
    """sum over i < j of v_i * v_j.  # [P, F, K] -> [P, K]"""
    return sum(vectors[:, i] * vectors[:, j] for i, j in itertools.combinations(range(vectors.shape[1]), 2))


def test_fm_sums_every_pair_for_each_objective() -> None:
    model, batch = small_ranker("fm", ("click", "buy")), small_batch()
    model.embeddings.tables["12"].data.normal_()
    logits, hidden, wide = oracle.at_work(model, batch)
    v = oracle.fields(model, batch)
    assert v.shape == (24, 8, 12)
    for t in range(2):
        own = products(v[:, :, 6 * t : 6 * t + 6])
        np.testing.assert_allclose(logits[:, t], wide[:, t] + own.sum(axis=1), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(hidden[:, 6 * t : 6 * t + 6], own, rtol=1e-4, atol=1e-4)


def test_deepfm_adds_an_mlp_over_the_same_vectors() -> None:
    model, batch = small_ranker("deepfm"), small_batch()
    model.embeddings.tables["6"].data.normal_()
    logits, hidden, wide = oracle.at_work(model, batch)
    v = oracle.fields(model, batch)
    deep = oracle.mlp(model.network.deep, v.reshape(24, -1))
    second = products(v)
    expected = wide + second.sum(axis=1, keepdims=True) + oracle.linear(model.network.output, deep)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(hidden, np.concatenate([second, deep], axis=1), rtol=1e-4, atol=1e-4)
    assert model.network.output.bias is None
