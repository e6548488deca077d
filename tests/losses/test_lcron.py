from __future__ import annotations

import numpy as np
import pytest
import torch

from prerank.losses import LCRONTerm, lcron
from tests.losses.oracles import cross_entropy, neural, passes
from tests.losses.test_distillation import batch_of


def speaking(plain, *columns):  # type: ignore[no-untyped-def]
    return [(z, y) for z, y in plain(*columns) if 0 < sum(v > 0 for v in y) < len(y)]


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize(("q", "t"), [(1, 1.0), (2, 3.0)])
def test_one_stage_is_its_formula(lists, plain, graded: bool, q: int, t: float) -> None:  # type: ignore[no-untyped-def]
    logits, labels, where = lists(graded)
    each = [(cross_entropy(passes(neural(z, t), q), y), cross_entropy(passes(neural(z, t), sum(v > 0 for v in y)), y))
            for z, y in speaking(plain, logits, labels, where)]  # fmt: skip
    found = lcron(logits, labels, where=where, passes=q, temperature=t)
    assert [x.item() for x in found] == pytest.approx(np.mean(each, axis=0).tolist(), rel=1e-9)


def test_two_stages_are_their_product(lists) -> None:  # type: ignore[no-untyped-def]
    logits, labels, where = lists()
    scores = torch.rand(logits.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    scores[0, 1] = scores[2, 0] = torch.nan  # without a score: not stopped
    each = []
    for row in range(len(logits)):
        z, y, s = (x[row][where[row]].numpy() for x in (logits, labels, scores))
        if not 0 < (y > 0).sum() < len(y):
            continue
        known = ~np.isnan(s)
        later = np.ones(len(z))
        if known.sum() > 2:
            later[known] = passes(neural(s[known].tolist(), 0.2), 2)
        each.append(cross_entropy(passes(neural(z.tolist(), 1.5), 1) * later, y.tolist()))
    found, _ = lcron(logits, labels, where=where, passes=1, temperature=1.5, scores=scores, then=2, then_temperature=0.2)
    assert found.item() == pytest.approx(np.mean(each), rel=1e-9)


def test_a_negative_that_the_ranking_model_stops_anyway_pushes_less() -> None:
    logits = torch.tensor([[1.0, 0.9, 0.0, -1.0]], dtype=torch.float64)
    labels = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)

    def slope(scores: torch.Tensor | None) -> float:
        z = logits.clone().requires_grad_()
        lcron(z, labels, passes=2, scores=scores, then=1)[0].backward()
        assert z.grad is not None
        return z.grad[0, 1].item()

    stopped = torch.tensor([[1.0, 0.0, 0.1, 0.1]], dtype=torch.float64)
    assert abs(slope(stopped)) < 0.25 * abs(slope(None))


def test_gradients_against_finite_differences(lists) -> None:  # type: ignore[no-untyped-def]
    logits, labels, where = lists()
    scores = torch.rand(logits.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: lcron(z, labels, where=where, passes=2, scores=scores), (logits.requires_grad_(),))


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_logits_stay_finite(lists, size: float) -> None:  # type: ignore[no-untyped-def]
    logits, labels, where = lists()
    scores = torch.rand(logits.shape, generator=torch.Generator().manual_seed(3))
    for z in ((logits * size).float(), torch.full(logits.shape, size)):
        z.requires_grad_()
        value = sum(lcron(z, labels.float(), where=where, scores=scores))
        (gradient,) = torch.autograd.grad(value, z)
        assert value.isfinite()
        assert gradient.isfinite().all()


def test_the_term_needs_scores_only_for_a_second_stage(lists) -> None:  # type: ignore[no-untyped-def]
    logits, labels, where = lists()
    batch, output = batch_of(logits, None, where)
    batch.labels.copy_(labels.unsqueeze(2))
    one, two = LCRONTerm(), LCRONTerm(then=0.5)
    assert (one.needs_teacher, two.needs_teacher) == (False, True)
    cascade, single = lcron(logits, labels, where=where)
    assert one(batch, output).item() == pytest.approx((cascade + 0.5 * single).item())
    with pytest.raises(ValueError, match="objective 'lcron': reads the ranking model's score"):
        two(batch, output)
    assert list(one.parameters()) == ["single"]


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="then: must be a count from 1 on, or a share between 0 and 1; got 0"):
        LCRONTerm(then=0)
