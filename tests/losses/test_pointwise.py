from __future__ import annotations

import math

import pytest
import torch

from prerank.losses import logloss, weighted_logloss


def test_logloss_is_its_formula() -> None:
    z, y = [0.3, -1.2, 2.0], [1.0, 0.0, 0.0]
    p = [1 / (1 + math.exp(-s)) for s in z]
    expected = -sum(t * math.log(q) + (1 - t) * math.log(1 - q) for q, t in zip(p, y, strict=True))
    logits, labels = torch.tensor(z, dtype=torch.float64), torch.tensor(y, dtype=torch.float64)
    assert logloss(logits, labels).item() == pytest.approx(expected / 3, rel=1e-12)
    assert logloss(logits, labels, reduction="sum").item() == pytest.approx(expected, rel=1e-12)
    weight = torch.tensor([2.0, 0.0, 1.0], dtype=torch.float64)
    two = (2 * math.log(1 + math.exp(-0.3)) + math.log(1 + math.exp(2.0))) / 3
    assert logloss(logits, labels, weight=weight).item() == pytest.approx(two, rel=1e-12)


def test_logloss_refuses_another_reduction() -> None:
    with pytest.raises(ValueError, match="reduction: must be mean or sum; got 'max'"):
        logloss(torch.zeros(1), torch.zeros(1), reduction="max")


def test_weighted_logloss_is_its_formula(lists, plain) -> None:  # type: ignore[no-untyped-def]
    logits, labels, where = lists(graded=True)
    total, n = 0.0, 0
    for zs, ys in plain(logits, labels, where):
        for z, y in zip(zs, ys, strict=True):
            p = 1 / (1 + math.exp(-z))
            total -= y * math.log(p) if y > 0 else math.log(1 - p)
            n += 1
    assert weighted_logloss(logits, labels, where=where).item() == pytest.approx(total / n, rel=1e-12)


def test_weighted_logloss_learns_odds_of_the_positives_weight_against_the_negatives_number() -> None:
    """Section 4.2: sum T_i / (N - k), which is near the mean T where few are positive."""
    labels = torch.tensor([30.0, 10.0] + [0.0] * 98, dtype=torch.float64)
    z = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([z], max_iter=100)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = weighted_logloss(z.expand(100), labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert z.exp().item() == pytest.approx(40 / 98, rel=1e-4)


def test_weighted_logloss_of_binary_labels_is_logloss(lists) -> None:  # type: ignore[no-untyped-def]
    logits, labels, where = lists()
    torch.testing.assert_close(weighted_logloss(logits, labels, where=where), logloss(logits, labels, where=where))
