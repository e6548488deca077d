"""DESIGN section 5: what every loss and every term must hold, whatever its name. Formulas are in tests/losses/."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from prerank import build
from prerank.batch import Batch, Output
from prerank.config import TermConfig
from prerank.losses import LISTWISE, LOSSES, TERMS, Objective
from prerank.towers import TwoTower
from tests.conftest import SIZES, small_batch, small_model, small_schema

Loss = Callable[..., Tensor]
GRADED = [name for name in LOSSES if name != "logloss"]
NEEDS: dict[str, dict[str, Any]] = {"jrc": {"energy": "buy"}, "category_alignment": {"feature": "genres"}}  # options without a default
OF_THE_MODEL = {"complexity"}  # terms that look at the model alone
TEACHES = {"category_alignment": ("item",), "hard_mimic": ("user",)}  # of the others: both towers
COMPARES = {"jrc", "distillation", "copr", "arf", "lcron"}  # terms that compare the candidates of a list
COUNTS = {name: np.arange(n) for name, n in SIZES.items()}


def lists(graded: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Three lists of five, some candidates masked, in double precision."""
    g = torch.Generator().manual_seed(7)
    logits = torch.randn(3, 5, generator=g, dtype=torch.float64)
    labels = torch.randint(0, 4 if graded else 2, (3, 5), generator=g).double()
    where = torch.rand(3, 5, generator=g) < 0.8
    labels[:, 0], labels[:, 1], where[:, :2] = 1.0, 0.0, True
    return logits, labels, where


def cases(*, both: bool = True) -> pytest.MarkDecorator:
    """Every loss with binary labels, and with graded ones where it takes them."""
    each = [pytest.param(LOSSES[name], graded, id=f"{name}{'-graded' * graded}") for graded in (False, True)[: 1 + both]
            for name in (GRADED if graded else LOSSES)]  # fmt: skip
    return pytest.mark.parametrize(("loss", "graded"), each)


@cases()
def test_a_positive_finite_scalar(loss: Loss, graded: bool) -> None:
    logits, labels, where = lists(graded)
    for value in (loss(logits, labels), loss(logits, labels, where=where), loss(logits.float(), labels.float(), where=where)):
        assert value.shape == ()
        assert 0 < value.item() < 100


@cases(both=False)
def test_all_masked_is_zero_with_zero_gradient(loss: Loss, graded: bool) -> None:
    logits, labels, _ = lists()
    logits.requires_grad_()
    value = loss(logits, labels, where=torch.zeros_like(labels, dtype=torch.bool))
    value.backward()
    assert value.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@cases()
def test_an_all_masked_list_among_others_changes_nothing(loss: Loss, graded: bool) -> None:
    logits, labels, where = lists(graded)
    more = [torch.cat([x, x[:1]]) for x in (logits, labels, where)]
    more[2][3] = False
    torch.testing.assert_close(loss(more[0], more[1], where=more[2]), loss(logits, labels, where=where))


@cases()
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_logits_stay_finite(loss: Loss, graded: bool, size: float) -> None:
    logits, labels, where = lists(graded)
    for logit in (logits.float() * size, logits.float().sign() * size, torch.full((3, 5), size)):
        z = logit.requires_grad_()
        value = loss(z, labels.float(), where=where)
        (gradient,) = torch.autograd.grad(value, z)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()


@cases()
def test_permuting_a_list_changes_nothing(loss: Loss, graded: bool) -> None:
    logits, labels, where = lists(graded)
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(loss(logits[:, order], labels[:, order], where=where[:, order]), loss(logits, labels, where=where))


@cases()
def test_permuting_the_lists_changes_nothing(loss: Loss, graded: bool) -> None:
    logits, labels, where = lists(graded)
    torch.testing.assert_close(loss(logits.flip(0), labels.flip(0), where=where.flip(0)), loss(logits, labels, where=where))


@cases()
def test_what_is_masked_does_not_matter(loss: Loss, graded: bool) -> None:
    logits, labels, where = lists(graded)
    changed = torch.where(where, logits, 77.0), torch.where(where, labels, 1 - labels)
    torch.testing.assert_close(loss(*changed, where=where), loss(logits, labels, where=where))


@cases()
def test_padding_a_list_changes_nothing(loss: Loss, graded: bool) -> None:
    logits, labels, where = lists(graded)
    padded = [torch.cat([x, torch.zeros(3, 2).to(x)], dim=1) for x in (logits, labels, where)]
    torch.testing.assert_close(loss(padded[0], padded[1], where=padded[2]), loss(logits, labels, where=where))


@cases()
def test_gradient_against_finite_differences(loss: Loss, graded: bool) -> None:
    logits, labels, where = lists(graded)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, labels, where=where), (logits,))


@cases()
def test_descending_puts_the_better_ones_first(loss: Loss, graded: bool) -> None:
    logits, labels, _ = lists(graded)
    z = logits.clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        loss(z, labels).backward()
        optimizer.step()
    better = (labels > 0).unsqueeze(2) & (labels == 0).unsqueeze(1)
    assert (z.unsqueeze(2) > z.unsqueeze(1))[better].all()


@pytest.mark.parametrize("loss", LISTWISE.values(), ids=LISTWISE)
def test_leading_dimensions_are_lists_too(loss: Loss) -> None:
    logits, labels, where = (x.repeat(2, 1) for x in lists())
    shaped = [x.view(2, 3, 5) for x in (logits, labels, where)]
    torch.testing.assert_close(loss(shaped[0], shaped[1], where=shaped[2]), loss(logits, labels, where=where))


# Terms read a batch and a model's output


def objective(name: str, **options: Any) -> Objective:
    raw = {"loss": name, **NEEDS.get(name, {}), **options}
    return build.objective([TermConfig.model_validate(raw)], small_schema(("click", "buy")), COUNTS)


def model_for(name: str, otherwise: str = "inttower") -> TwoTower:
    """A model that the term can be trained with."""
    return small_model("dat" if getattr(TERMS.get(name), "needs_guess", False) else otherwise, ("click", "buy"))


def said(name: str, batch: Batch) -> Output:
    return model_for(name).eval()(batch)


def batch_of_lists() -> Batch:
    return with_scores(small_batch(lists=6, candidates=4, objectives=2))


def with_scores(batch: Batch) -> Batch:
    """A teacher's scores, some of them missing, and bids."""
    g = torch.Generator().manual_seed(5)
    scores = torch.rand(batch.where.shape, generator=g)
    missing = torch.rand(batch.where.shape, generator=g) < 0.1
    return replace(batch, teacher=scores.masked_fill(missing, torch.nan), bid=0.1 + torch.rand(batch.where.shape, generator=g))


everything = pytest.mark.parametrize("name", [*LOSSES, *(t for t in TERMS if t not in OF_THE_MODEL)])


@everything
def test_a_term_is_zero_without_candidates(name: str) -> None:
    batch = batch_of_lists()
    value, _ = objective(name)(replace(batch, where=torch.zeros_like(batch.where)), said(name, batch))
    assert value.item() == 0.0


@everything
def test_a_term_is_finite_without_positives_and_without_negatives(name: str) -> None:
    batch = batch_of_lists()
    for labels in (torch.zeros_like(batch.labels), torch.ones_like(batch.labels)):
        value, _ = objective(name)(replace(batch, labels=labels), said(name, batch))
        assert torch.isfinite(value)


@everything
def test_a_term_does_not_mind_the_order_of_lists_and_candidates(name: str) -> None:
    batch = batch_of_lists()
    rows, columns = torch.randperm(6), torch.randperm(4)
    permuted = replace(batch, user_index=batch.user_index[rows], **{
        part: getattr(batch, part)[rows][:, columns] for part in ("item_index", "labels", "where", "teacher", "bid")
    })  # fmt: skip
    torch.testing.assert_close(objective(name)(permuted, said(name, permuted))[0], objective(name)(batch, said(name, batch))[0])


@everything
def test_a_term_stays_finite_for_extreme_models(name: str) -> None:
    batch = batch_of_lists()
    model = model_for(name, "mf")
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(2e3 if not model.guesses else 20)  # mf: logits of some 1e4
    output = model(batch)
    assert output.logits.abs().max() > 100
    value, _ = objective(name)(batch, output)
    value.backward()
    assert torch.isfinite(value)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@everything
def test_a_term_teaches_both_towers(name: str) -> None:
    batch = batch_of_lists()
    model = model_for(name)
    objective(name)(batch, model(batch))[0].backward()
    for side in TEACHES.get(name, ("user", "item")):
        assert any(n.startswith(side) and p.grad is not None and p.grad.abs().sum() > 0 for n, p in model.named_parameters())


@everything
def test_click_rows_are_refused_where_they_say_nothing(name: str) -> None:
    batch = with_scores(small_batch(objectives=2))
    if name in LISTWISE or name in COMPARES:
        with pytest.raises(ValueError, match=rf"objective '{name}': compares the candidates of a list, and every list here holds one"):
            objective(name)(batch, said(name, batch))
        value, _ = objective(name, lists="batch")(batch, said(name, batch))
    else:
        value, _ = objective(name)(batch, said(name, batch))
    assert value.item() > 0


@pytest.mark.parametrize("name", LISTWISE)
def test_the_batch_as_one_list(name: str) -> None:
    batch = batch_of_lists()
    output = said(name, batch)
    pooled = [x[batch.where].unsqueeze(0) for x in (output.logits[..., 0], batch.labels[..., 0])]
    torch.testing.assert_close(objective(name, lists="batch")(batch, output)[0], LOSSES[name](*pooled))


@pytest.mark.parametrize("name", [n for n in LOSSES if n not in LISTWISE])
def test_a_pointwise_loss_has_no_lists(name: str) -> None:
    with pytest.raises(ValueError, match=f"objective '{name}': unknown option 'lists'"):
        objective(name, lists="batch")


def test_short_lists_by_chance_are_no_mistake() -> None:
    term = objective("bpr")
    long, short = batch_of_lists(), small_batch(lists=2, candidates=1, objectives=2)
    term(long, said("bpr", long))
    assert term(short, said("bpr", short))[0].item() == 0.0
