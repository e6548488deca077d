from __future__ import annotations

import numpy as np
import pytest
import torch

from prerank.losses import neuralsort, softsort
from tests.losses.oracles import neural, soft


def expected(plain, relaxed) -> float:  # type: ignore[no-untyped-def]
    """Mean over places, then over lists whose labels differ."""
    each = [-np.mean((relaxed(y, True) * np.log(relaxed(z, False))).sum(axis=1)) for z, y in plain if len(set(y)) > 1]
    assert len(each) == 3
    return float(np.mean(each))


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize(("t", "of_labels"), [(1.0, 0.1), (3.0, 0.7)])
def test_neuralsort_is_its_formula(lists, plain, graded: bool, t: float, of_labels: float) -> None:  # type: ignore[no-untyped-def]
    logits, labels, where = lists(graded)
    value = expected(plain(logits, labels, where), lambda s, label: neural(s, of_labels if label else t))
    assert neuralsort(logits, labels, where=where, temperature=t, label_temperature=of_labels).item() == pytest.approx(value, rel=1e-10)


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_softsort_is_its_formula(lists, plain, graded: bool, power: float) -> None:  # type: ignore[no-untyped-def]
    logits, labels, where = lists(graded)
    value = expected(plain(logits, labels, where), lambda s, label: soft(s, 0.5 if label else 2.0, power))
    found = softsort(logits, labels, where=where, temperature=2.0, label_temperature=0.5, power=power)
    assert found.item() == pytest.approx(value, rel=1e-10)


@pytest.mark.parametrize("loss", [neuralsort, softsort])
def test_logits_in_the_right_order_cost_least(loss) -> None:  # type: ignore[no-untyped-def]
    labels = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    right, wrong = 20 * labels, 20 * labels.flip(1)
    assert loss(right, labels).item() == pytest.approx(0.0, abs=0.05)
    assert loss(wrong, labels).item() > 10


@pytest.mark.parametrize("loss", [neuralsort, softsort])
@pytest.mark.parametrize("name", ["temperature", "label_temperature"])
def test_temperatures_must_be_positive(loss, name: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=f"{name}: must be positive; got 0"):
        loss(torch.zeros(1, 2), torch.zeros(1, 2), **{name: 0})


def test_a_power_must_be_at_least_1() -> None:
    with pytest.raises(ValueError, match=r"power: must be at least 1; got 0\.5"):
        softsort(torch.zeros(1, 2), torch.zeros(1, 2), power=0.5)
