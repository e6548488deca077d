from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from prerank.losses import ARFTerm, arf
from tests.losses.oracles import neural
from tests.losses.test_distillation import batch_of


def expected(z: list[float], y: list[float], m: int, k: int | None, t: float, of_labels: float) -> tuple[float | None, float]:
    p, wanted = neural(z, t), neural(y, of_labels)
    whole = float(-np.mean((wanted * np.log(p)).sum(axis=1)))
    if k is None:
        truth = [float(v > 0) for v in y]
    else:
        border = sorted(y, reverse=True)[k - 1]
        share = (k - sum(v > border for v in y)) / sum(v == border for v in y)
        truth = [1.0 if v > border else share if v == border else 0.0 for v in y]
    relaxed = -sum(w * math.log(sum(p[i, j] for i in range(m)) / m) for j, w in enumerate(truth)) / sum(truth) if sum(truth) else 0.0
    says = len(z) > m and (0 < sum(truth) < len(y) if k is None else len(z) > k)
    return (relaxed if says else None), whole


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize(("passes", "top", "t", "of_labels"), [(2, None, 1.0, 0.1), (1, 2, 3.0, 0.5), (0.4, None, 0.5, 0.1)])
def test_arf_is_its_formula(lists, plain, graded: bool, passes: float, top: int | None, t: float, of_labels: float) -> None:  # type: ignore[no-untyped-def]
    logits, labels, where = lists(graded)
    relaxed, whole = [], []
    for z, y in plain(logits, labels, where):
        if len(set(y)) == 1:
            continue
        m = passes if isinstance(passes, int) else max(1, round(passes * len(z)))
        one, two = expected(z, y, m, top, t, of_labels)
        relaxed += [] if one is None else [one]
        whole.append(two)
    assert len(relaxed) >= 2
    found = arf(logits, labels, where=where, passes=passes, top=top, temperature=t, label_temperature=of_labels)
    assert [x.item() for x in found] == pytest.approx([np.mean(relaxed), np.mean(whole)], rel=1e-9)


def test_gradients_against_finite_differences(lists) -> None:  # type: ignore[no-untyped-def]
    logits, labels, where = lists(True)
    assert torch.autograd.gradcheck(lambda z: arf(z, labels, where=where, passes=2), (logits.requires_grad_(),))


def test_the_weights_are_learned_and_positive(lists) -> None:  # type: ignore[no-untyped-def]
    """L / (2 a^2) + log a is least where a^2 = L, for each part."""
    logits, labels, where = lists()
    batch, output = batch_of(logits, None, where)
    batch.labels.copy_(labels.unsqueeze(2))
    term = ARFTerm(passes=2)
    parts = [x.item() for x in arf(logits, labels, where=where, passes=2)]
    assert term(batch, output).item() == pytest.approx(0.5 * sum(parts), rel=1e-6)
    optimizer = torch.optim.Adam(term.parameters().values(), lr=0.05)
    for _ in range(500):
        optimizer.zero_grad()
        term(batch, output).backward()
        optimizer.step()
    assert [p.exp().item() for p in term.parameters().values()] == pytest.approx(parts, rel=1e-3)


def test_without_lists_that_speak_the_weights_rest(lists) -> None:  # type: ignore[no-untyped-def]
    logits, _, where = lists()
    term = ARFTerm()
    for p in term.parameters().values():
        p.data.fill_(3.0)
    value = term(*batch_of(logits.requires_grad_(), None, where))  # labels are all 0
    value.backward()
    assert value.item() == 0
    assert all(p.grad is None or p.grad.item() == 0 for p in term.parameters().values())


@pytest.mark.parametrize(("options", "message"), [
    ({"passes": 0}, "passes: must be a count from 1 on, or a share between 0 and 1; got 0"),
    ({"passes": 1.5}, r"passes: must be a count from 1 on, or a share between 0 and 1; got 1\.5"),
    ({"top": 0}, "top: must be at least 1; got 0"),
    ({"label_temperature": -1.0}, r"label_temperature: must be positive; got -1\.0"),
])  # fmt: skip
def test_wrong_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ARFTerm(**options)  # type: ignore[arg-type]
