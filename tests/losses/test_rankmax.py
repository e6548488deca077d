from __future__ import annotations

import math

import pytest
import torch

from prerank.losses import rankmax


@pytest.mark.parametrize("graded", [False, True])
def test_rankmax_is_its_formula(lists, plain, graded: bool) -> None:  # type: ignore[no-untyped-def]
    logits, labels, where = lists(graded)
    means = []
    for z, y in plain(logits, labels, where):
        each = [math.log(sum(max(a - b + 1, 0) for a in z)) for b, t in zip(z, y, strict=True) if t > 0]
        means += [sum(each) / len(each)] if each else []
    assert len(means) == 3
    assert rankmax(logits, labels, where=where).item() == pytest.approx(sum(means) / 3, rel=1e-12)


def test_candidates_beyond_the_margin_cost_nothing() -> None:
    labels = torch.tensor([[1.0, 0.0, 0.0]])
    logits = torch.tensor([[5.0, 3.9, -2.0]], requires_grad=True)
    loss = rankmax(logits, labels)
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0
