from __future__ import annotations

import math

import pytest
import torch

from prerank.losses import am_rankmax, rankmax


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


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize(("alpha", "beta", "power"), [(2.0, None, 1.0), (0.0, None, 1.0), (3.0, 0.5, 1.0), (1.0, 0.7, 2.0)])
def test_am_rankmax_is_equation_18_and_19(lists, plain, graded: bool, alpha: float, beta: float | None, power: float) -> None:  # type: ignore[no-untyped-def]
    logits, labels, where = lists(graded)
    means = []
    for z, y in plain(logits, labels, where):
        each = []
        for j in range(len(z)):
            below = [i for i in range(len(z)) if y[i] < y[j]]
            if y[j] <= 0 or not below:
                continue
            total = 0.0
            for i in below:
                delta = 1.0 if beta is None else beta * abs(y[i] - y[j]) ** power
                total += max(z[i] - z[j] + (alpha if y[i] == 0 else 0.0) + delta, 0.0)
            each.append(math.log(1 + total))
        means += [sum(each) / len(each)] if each else []
    assert len(means) == 3
    found = am_rankmax(logits, labels, where=where, alpha=alpha, beta=beta, power=power)
    assert found.item() == pytest.approx(sum(means) / len(means), rel=1e-12)


def test_the_margin_is_wider_over_candidates_of_no_value() -> None:
    """Graded 2 over 1 needs a gap of 1, over 0 one of 1 + alpha: beyond it nothing is left to learn."""
    labels = torch.tensor([[2.0, 1.0, 0.0]])
    for logits, satisfied in (([7.01, 6.0, 0.99], True), ([7.01, 6.0, 1.01], False), ([6.99, 6.0, 0.99], False)):
        z = torch.tensor([logits], requires_grad=True)
        loss = am_rankmax(z, labels, alpha=4.0)
        loss.backward()
        assert z.grad is not None
        assert (loss.item() == 0, not z.grad.any()) == (satisfied, satisfied)


@pytest.mark.parametrize(("options", "message"), [({"alpha": -1.0}, r"alpha: must be at least 0; got -1\.0"),
                                                  ({"beta": -1.0}, r"beta: must be at least 0; got -1\.0"),
                                                  ({"power": 0.0}, r"power: must be positive; got 0\.0")])  # fmt: skip
def test_wrong_margins(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        am_rankmax(torch.zeros(1, 2), torch.zeros(1, 2), **options)
