from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prerank.losses import approx_ndcg, info_nce, listnet, softmax


def distribution(values: list[float]) -> list[float]:
    mass = [math.exp(v) for v in values]
    return [m / sum(mass) for m in mass]


def cross_entropy(target: list[float], logits: list[float]) -> float:
    return -sum(t * math.log(p) for t, p in zip(target, distribution(logits), strict=True))


@pytest.mark.parametrize("graded", [False, True])
def test_softmax_is_its_formula(lists, plain, graded: bool) -> None:  # type: ignore[no-untyped-def]
    logits, labels, where = lists(graded)
    each = [cross_entropy([t / sum(y) for t in y], z) for z, y in plain(logits, labels, where) if sum(y) > 0]
    assert len(each) == 3
    assert softmax(logits, labels, where=where).item() == pytest.approx(np.mean(each), rel=1e-12)


def test_listnet_is_its_formula(lists, plain) -> None:  # type: ignore[no-untyped-def]
    logits, labels, where = lists(graded=True)
    each = [cross_entropy(distribution(y), z) for z, y in plain(logits, labels, where)]
    assert listnet(logits, labels, where=where).item() == pytest.approx(np.mean(each), rel=1e-12)


@pytest.mark.parametrize("gain", ["exponential", "linear"])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_approx_ndcg_is_its_formula(lists, plain, gain: str, temperature: float) -> None:  # type: ignore[no-untyped-def]
    logits, labels, where = lists(graded=True)
    each = []
    for z, y in plain(logits, labels, where):
        if sum(y) == 0:
            continue
        g = [2**t - 1 if gain == "exponential" else t for t in y]
        ranks = [1 + sum(1 / (1 + math.exp(-(z[j] - z[i]) / temperature)) for j in range(len(z)) if j != i) for i in range(len(z))]
        best = sum(v / math.log2(1 + place) for place, v in enumerate(sorted(g, reverse=True), start=1))
        each.append(1 - sum(v / math.log2(1 + r) for v, r in zip(g, ranks, strict=True)) / best)
    found = approx_ndcg(logits, labels, where=where, temperature=temperature, gain=gain)
    assert found.item() == pytest.approx(np.mean(each), rel=1e-10)


def test_approx_ndcg_of_a_low_temperature_is_ndcg() -> None:
    from sklearn.metrics import ndcg_score

    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(5, 8)), rng.integers(0, 4, (5, 8)).astype(float)
    found = approx_ndcg(torch.from_numpy(z), torch.from_numpy(y), temperature=1e-5, gain="linear").item()
    assert 1 - found == pytest.approx(ndcg_score(y, z), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"temperature": 0.0}, r"temperature: must be positive; got 0\.0"),
     ({"gain": "log"}, "gain: must be one of exponential, linear; got 'log'")],
)  # fmt: skip
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        approx_ndcg(torch.zeros(1, 2), torch.zeros(1, 2), **options)  # type: ignore[arg-type]


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6), st.integers(0, 5))
def test_info_nce_of_one_positive_is_minus_log_softmax(z: list[float], at: int) -> None:
    at %= len(z)
    labels = torch.zeros(1, len(z), dtype=torch.float64)
    labels[0, at] = 1.0
    expected = -math.log(distribution(z)[at])
    logits = torch.tensor([z], dtype=torch.float64)
    assert info_nce(logits, labels).item() == pytest.approx(expected, abs=1e-9)
    assert softmax(logits, labels).item() == pytest.approx(expected, abs=1e-9)


def test_info_nce_averages_over_positives_not_lists(lists, plain) -> None:  # type: ignore[no-untyped-def]
    logits, labels, where = lists()
    total, n = 0.0, 0.0
    for z, y in plain(logits, labels, where):
        total, n = total + cross_entropy(y, z), n + sum(y)
    assert info_nce(logits, labels, where=where).item() == pytest.approx(total / n, rel=1e-10)
