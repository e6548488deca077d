from __future__ import annotations

import math

import pytest
import torch

from prerank.losses import bpr, ranknet


@pytest.mark.parametrize("graded", [False, True])
def test_bpr_is_its_formula(lists, plain, graded: bool) -> None:  # type: ignore[no-untyped-def]
    logits, labels, where = lists(graded)
    means = []
    for z, y in plain(logits, labels, where):
        each = [math.log(1 + math.exp(-(a - b))) for a, s in zip(z, y, strict=True) for b, t in zip(z, y, strict=True) if s > 0 and t == 0]
        means += [sum(each) / len(each)] if each else []
    assert len(means) == 3  # the list without positives has no pair
    assert bpr(logits, labels, where=where).item() == pytest.approx(sum(means) / 3, rel=1e-12)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_ranknet_is_its_formula(lists, plain, scale: float) -> None:  # type: ignore[no-untyped-def]
    logits, labels, where = lists(graded=True)
    means = []
    for z, y in plain(logits, labels, where):
        each = [math.log(1 + math.exp(-scale * (z[i] - z[j]))) for i in range(len(z)) for j in range(len(z)) if y[i] > y[j]]
        means += [sum(each) / len(each)] if each else []
    assert ranknet(logits, labels, where=where, scale=scale).item() == pytest.approx(sum(means) / len(means), rel=1e-12)


def test_for_binary_labels_the_two_are_one(lists) -> None:  # type: ignore[no-untyped-def]
    logits, labels, where = lists()
    torch.testing.assert_close(bpr(logits, labels, where=where), ranknet(logits, labels, where=where))


def test_a_scale_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"scale: must be positive; got 0"):
        ranknet(torch.zeros(1, 2), torch.zeros(1, 2), scale=0)
