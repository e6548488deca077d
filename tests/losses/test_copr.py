from __future__ import annotations

import math

import pytest
import torch

from prerank.batch import Batch, Output
from prerank.losses import COPRTerm, copr


def paid(lists) -> tuple[torch.Tensor, ...]:  # type: ignore[no-untyped-def]
    logits, _, where = lists()
    g = torch.Generator().manual_seed(3)
    values, bids = (torch.rand(logits.shape, generator=g, dtype=torch.float64) for _ in range(2))
    bids[0, 1] = 0.0  # no bid: not in any pair
    values[1, 0], bids[1, 0], values[1, 1], bids[1, 1] = 0.4, 0.5, 0.5, 0.4  # equal revenue: no pair of the two
    return logits, values, bids, where


def expected(z: list[float], v: list[float], b: list[float]) -> float:
    t = [x * y for x, y in zip(v, b, strict=True)]
    n = len(t)
    rank = [sum(x > t[i] for x in t) + (1 + sum(x == t[i] for x in t)) / 2 for i in range(n)]
    y = [1 / (1 + math.exp(-x)) for x in z]
    total = weights = 0.0
    for i in range(n):
        for j in range(n):
            if t[i] <= t[j]:
                continue
            gain = abs(t[i] - t[j]) / max(t)
            delta = gain * abs(1 / math.log2(1 + rank[i]) - 1 / math.log2(1 + rank[j]))
            total += delta * math.log(1 + math.exp(1 - y[i] * b[i] / (y[j] * b[j])))
            weights += delta
    return total / weights


def test_copr_is_its_formula(lists) -> None:  # type: ignore[no-untyped-def]
    logits, values, bids, where = paid(lists)
    each = []
    for row in range(len(logits)):
        left = where[row] & (bids[row] > 0)
        each.append(expected(*(x[row][left].tolist() for x in (logits, values, bids))))
    assert copr(logits, values, bids, where=where).item() == pytest.approx(sum(each) / len(each), rel=1e-9)


def test_only_the_order_after_bids_counts() -> None:
    values, bids = torch.tensor([[0.2, 0.1]]), torch.tensor([[1.0, 4.0]])
    right, wrong = torch.tensor([[-5.0, 0.0]]), torch.tensor([[5.0, -5.0]])
    assert copr(right, values, bids).item() < 0.02
    assert copr(wrong, values, bids).item() > 1


def test_gradient_against_finite_differences(lists) -> None:  # type: ignore[no-untyped-def]
    logits, values, bids, where = paid(lists)
    assert torch.autograd.gradcheck(lambda z: copr(z, values, bids, where=where), (logits.requires_grad_(),))


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_logits_and_bids_stay_finite(lists, size: float) -> None:  # type: ignore[no-untyped-def]
    logits, values, bids, where = (x.float() if x.is_floating_point() else x for x in paid(lists))
    for z in (logits * size, torch.full_like(logits, size)):
        z.requires_grad_()
        value = copr(z, values, bids * 1e6, where=where)
        (gradient,) = torch.autograd.grad(value, z)
        assert value.isfinite()
        assert gradient.isfinite().all()


def test_the_term_reads_teacher_or_label() -> None:
    values, bids = torch.tensor([[0.2, 0.1, torch.nan]]), torch.ones(1, 3)
    batch = Batch(user={}, item={}, user_index=torch.zeros(1).long(), item_index=torch.zeros(1, 3).long(),
                  labels=torch.tensor([[[0.0], [1.0], [0.0]]]), where=torch.ones(1, 3).bool(), teacher=values, bid=bids)  # fmt: skip
    output = Output(torch.tensor([[[3.0], [-3.0], [0.0]]]))
    by_teacher, by_label = COPRTerm(), COPRTerm(by="label")
    assert (by_teacher.needs_teacher, by_label.needs_teacher, by_label.needs_bid) == (True, False, True)
    assert by_teacher(batch, output).item() < 0.1 < 1 < by_label(batch, output).item()
    with pytest.raises(ValueError, match="by: must be teacher or label; got 'rank'"):
        COPRTerm(by="rank")
