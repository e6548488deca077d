"""DESIGN section 5, every loss: its formula, masks, extremes, symmetry and gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prerank.losses import LOSSES, info_nce, logloss

torch.manual_seed(0)


def lists(b: int = 3, c: int = 5, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(b * 100 + c)
    logits = torch.randn(b, c, generator=g, dtype=dtype)
    labels = (torch.rand(b, c, generator=g) < 0.5).to(dtype)
    where = torch.rand(b, c, generator=g) < 0.7
    labels[:, 0], where[:, 0] = 1.0, True
    return logits, labels, where


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
class TestEveryLoss:
    def test_all_masked_is_zero_with_zero_gradient(self, loss) -> None:  # type: ignore[no-untyped-def]
        logits, labels, _ = lists()
        logits.requires_grad_()
        value = loss(logits, labels, where=torch.zeros_like(labels, dtype=torch.bool))
        value.backward()
        assert value.item() == 0.0
        assert torch.equal(logits.grad, torch.zeros_like(logits))

    @pytest.mark.parametrize("size", [1e4, -1e4])
    def test_extreme_logits_stay_finite(self, loss, size: float) -> None:  # type: ignore[no-untyped-def]
        logits = (torch.randn(3, 5) * size).requires_grad_()
        labels = torch.tensor([[1.0, 0.0, 1.0, 0.0, 0.0]]).expand(3, 5)
        value = loss(logits, labels)
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(logits.grad).all()

    def test_permuting_a_list_changes_nothing(self, loss) -> None:  # type: ignore[no-untyped-def]
        logits, labels, where = lists()
        order = torch.tensor([3, 1, 4, 0, 2])
        torch.testing.assert_close(loss(logits[:, order], labels[:, order], where=where[:, order]), loss(logits, labels, where=where))

    def test_what_is_masked_does_not_matter(self, loss) -> None:  # type: ignore[no-untyped-def]
        logits, labels, where = lists()
        changed = torch.where(where, logits, 77.0), torch.where(where, labels, 1 - labels)
        torch.testing.assert_close(loss(*changed, where=where), loss(logits, labels, where=where))

    def test_gradient_against_finite_differences(self, loss) -> None:  # type: ignore[no-untyped-def]
        logits, labels, where = lists()
        logits.requires_grad_()
        assert torch.autograd.gradcheck(lambda z: loss(z, labels, where=where), (logits,))


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


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6), st.integers(0, 5))
def test_info_nce_of_one_positive_is_minus_log_softmax(z: list[float], at: int) -> None:
    at %= len(z)
    labels = torch.zeros(1, len(z), dtype=torch.float64)
    labels[0, at] = 1.0
    expected = -math.log(math.exp(z[at]) / sum(math.exp(s) for s in z))
    assert info_nce(torch.tensor([z], dtype=torch.float64), labels).item() == pytest.approx(expected, abs=1e-9)


def test_info_nce_averages_over_positives_not_lists() -> None:
    logits, labels, where = lists()
    total, n = 0.0, 0
    for z, y, w in zip(logits.tolist(), labels.tolist(), where.tolist(), strict=True):
        kept = [(s, t) for s, t, k in zip(z, y, w, strict=True) if k]
        mass = sum(math.exp(s) for s, _ in kept)
        for s, t in kept:
            if t:
                total, n = total - math.log(math.exp(s) / mass), n + 1
    assert info_nce(logits, labels, where=where).item() == pytest.approx(total / n, rel=1e-10)
