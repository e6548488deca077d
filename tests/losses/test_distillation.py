from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from prerank.batch import Batch, Output
from prerank.losses import DistillationTerm, odds_distillation, softmax_distillation


def scored(lists) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # type: ignore[no-untyped-def]
    logits, _, where = lists()
    scores = torch.rand(logits.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return logits, scores, where


def batch_of(logits: torch.Tensor, scores: torch.Tensor | None, where: torch.Tensor) -> tuple[Batch, Output]:
    b, c = logits.shape
    batch = Batch(user={}, item={}, user_index=torch.zeros(b).long(), item_index=torch.zeros(b, c).long(), labels=torch.zeros(b, c, 1),
                  where=where, teacher=scores)  # fmt: skip
    return batch, Output(logits.unsqueeze(2))


def test_softmax_is_equation_14(lists, plain) -> None:  # type: ignore[no-untyped-def]
    logits, scores, where = scored(lists)
    each = []
    for z, p in plain(logits, scores, where):
        total = sum(math.exp(x) for x in z)
        each.append(-sum(a * math.log(math.exp(x) / total) for a, x in zip(p, z, strict=True)))
    assert softmax_distillation(logits, scores, where=where).item() == pytest.approx(sum(each) / len(each), rel=1e-10)


def test_weighted_logloss_is_its_formula_and_learns_the_score(lists, plain) -> None:  # type: ignore[no-untyped-def]
    logits, scores, where = scored(lists)
    each = [p * math.log(1 + math.exp(-x)) + math.log(1 + math.exp(x)) for z, q in plain(logits, scores, where) for x, p in
            zip(z, q, strict=True)]  # fmt: skip
    assert odds_distillation(logits, scores, where=where).item() == pytest.approx(sum(each) / len(each), rel=1e-10)
    p = torch.tensor([0.1, 1.0, 7.0], dtype=torch.float64)
    z = p.log().requires_grad_()
    odds_distillation(z, p).backward()
    assert z.grad is not None
    assert z.grad.abs().max() < 1e-12


@pytest.mark.parametrize("kind", ["softmax", "logloss", "weighted_logloss", "pairwise"])
def test_a_candidate_without_a_score_is_as_if_it_were_not_there(lists, kind: str) -> None:  # type: ignore[no-untyped-def]
    logits, scores, where = scored(lists)
    holes = torch.zeros_like(where)
    holes[:, 3] = True
    term = DistillationTerm(kind=kind)
    batch, output = batch_of(logits, scores.masked_fill(holes, torch.nan), where)
    without, _ = batch_of(logits, scores, where & ~holes)
    assert term(batch, output).item() > 0
    torch.testing.assert_close(term(batch, output), term(without, output))


@pytest.mark.parametrize("kind", ["softmax", "logloss", "weighted_logloss", "pairwise"])
def test_no_score_at_all_is_zero(lists, kind: str) -> None:  # type: ignore[no-untyped-def]
    logits, scores, where = scored(lists)
    logits.requires_grad_()
    batch, output = batch_of(logits, torch.full_like(scores, torch.nan), where)
    value = DistillationTerm(kind=kind)(batch, output)
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("kind", ["softmax", "logloss", "weighted_logloss", "pairwise"])
def test_gradients_against_finite_differences(lists, kind: str) -> None:  # type: ignore[no-untyped-def]
    logits, scores, where = scored(lists)
    scores[0, 0] = torch.nan

    def value(z: torch.Tensor) -> torch.Tensor:
        return DistillationTerm(kind=kind)(*batch_of(z, scores, where))

    assert torch.autograd.gradcheck(value, (logits.requires_grad_(),))


def test_batches_without_scores_say_what_is_missing(lists) -> None:  # type: ignore[no-untyped-def]
    logits, _, where = scored(lists)
    with pytest.raises(ValueError, match="objective 'distillation': reads the ranking model's score of each candidate, which the data"):
        DistillationTerm()(*batch_of(logits, None, where))


@pytest.mark.parametrize(("kind", "score", "rule"), [("softmax", -3.2, "of at least 0; got -3.2"), ("logloss", 1.5, "in .0, 1.; got 1.5"),
                                                      ("weighted_logloss", -1.0, "of at least 0; got -1")])  # fmt: skip
def test_scores_that_a_kind_cannot_take(lists, kind: str, score: float, rule: str) -> None:  # type: ignore[no-untyped-def]
    logits, scores, where = scored(lists)
    scores[0, 0] = score
    batch, output = batch_of(logits, scores, where)
    with pytest.raises(ValueError, match=f"kind {kind} needs scores {rule}; take a probability, or kind pairwise"):
        DistillationTerm(kind=kind)(batch, output)
    assert DistillationTerm(kind="pairwise")(batch, output).isfinite()
    masked = replace(batch, where=where & (torch.arange(where.shape[1]) > 0))
    assert DistillationTerm(kind=kind)(masked, output).isfinite()


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="kind: must be one of softmax, logloss, weighted_logloss, pairwise; got 'mse'"):
        DistillationTerm(kind="mse")
    with pytest.raises(ValueError, match="lists: kind logloss judges each candidate alone and has none"):
        DistillationTerm(kind="logloss", lists="batch")
