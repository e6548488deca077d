from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prerank.losses import dftopk
from prerank.losses.topk import threshold


def expected(z: list[float], y: list[float], k: int, t: float) -> float:
    ordered = sorted(z, reverse=True)
    border = (ordered[k - 1] + ordered[k]) / 2
    mask = [1 / (1 + math.exp(-(x - border) / t)) for x in z]
    return -sum(math.log(m) if b > 0 else math.log(1 - m) for m, b in zip(mask, y, strict=True)) / len(z)


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize(("top", "t"), [(None, 1.0), (None, 0.3), (2, 1.0), (1, 2.0)])
def test_dftopk_is_its_formula(lists, plain, graded: bool, top: int | None, t: float) -> None:  # type: ignore[no-untyped-def]
    logits, labels, where = lists(graded)
    each = []
    for z, y in plain(logits, labels, where):
        k = top or sum(v > 0 for v in y)
        if len(z) > k and 0 < sum(v > 0 for v in y) < len(y):
            each.append(expected(z, y, k, t))
    assert len(each) >= 2
    assert dftopk(logits, labels, where=where, top=top, temperature=t).item() == pytest.approx(sum(each) / len(each), rel=1e-10)


@given(st.lists(st.integers(-50, 50), min_size=4, max_size=12, unique=True), st.integers(1, 3))
def test_the_mask_tends_to_the_hard_one(values: list[int], k: int) -> None:
    """With the k best for positives the loss vanishes as t does, and with any other set it does not."""
    z = torch.tensor([values], dtype=torch.float64)
    best = torch.zeros_like(z).scatter(1, z.topk(k).indices, 1.0)
    assert dftopk(z, best, temperature=1e-3).item() == pytest.approx(0.0, abs=1e-12)
    assert dftopk(z, best, temperature=1e-3, top=k).item() == pytest.approx(0.0, abs=1e-12)
    border = threshold(z, torch.tensor([k]), None)
    mask = torch.sigmoid((z - border) / 1e-3)
    assert torch.equal(mask.round(), best)
    assert dftopk(z, 1 - best, temperature=1e-3, top=k).item() > 1


def test_selection_and_sort_find_the_same_threshold() -> None:
    z = torch.randn(6, 40, dtype=torch.float64)
    assert torch.equal(threshold(z, torch.full((6,), 7), 7), threshold(z, torch.full((6,), 7), None))


def test_lists_of_as_many_as_pass_say_nothing() -> None:
    logits = torch.tensor([[1.0, 2.0]], requires_grad=True)
    loss = dftopk(logits, torch.tensor([[0.0, 1.0]]), top=2)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize(("options", "message"), [({"top": 0}, "top: must be at least 1; got 0"),
                                                  ({"temperature": 0}, "temperature: must be positive; got 0")])  # fmt: skip
def test_wrong_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dftopk(torch.zeros(1, 2), torch.zeros(1, 2), **options)
