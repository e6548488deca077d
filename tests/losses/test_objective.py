from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from prerank.batch import Batch, Output, Stage
from prerank.losses import LossTerm, Objective, Term, logloss
from tests.conftest import small_batch, small_model


def test_the_total_is_the_weighted_sum_and_each_term_is_itemised() -> None:
    batch = small_batch(objectives=2)
    output = Output(small_model("mf", ("click", "buy"))(batch).logits)
    objective = Objective([LossTerm("click", logloss), LossTerm("buy", logloss, weight=0.5, objective=1)])
    total, terms = objective(batch, output)
    expected = [torch.nn.functional.binary_cross_entropy_with_logits(output.logits[..., t], batch.labels[..., t]).item() for t in (0, 1)]
    assert [terms["click"].item(), terms["buy"].item()] == pytest.approx(expected)
    assert total.item() == pytest.approx(expected[0] + 0.5 * expected[1])
    assert not terms["click"].requires_grad
    assert total.requires_grad


def test_a_term_sees_only_its_stages() -> None:
    logits = torch.tensor([[[2.0], [-1.0], [0.5]]])
    batch = replace(
        small_batch(lists=1, candidates=3),
        labels=torch.tensor([[[1.0], [0.0], [0.0]]]),
        where=torch.tensor([[True, True, False]]),
        stage=torch.tensor([[Stage.IMPRESSION, Stage.RANDOM, Stage.IMPRESSION]], dtype=torch.int8),
    )
    value = LossTerm("logloss", logloss, stages=(Stage.IMPRESSION,))(batch, Output(logits))
    assert value.item() == pytest.approx(math.log(1 + math.exp(-2.0)))
    both = LossTerm("logloss", logloss, stages=(Stage.IMPRESSION, Stage.RANDOM))(batch, Output(logits))
    assert both.item() == pytest.approx((math.log(1 + math.exp(-2.0)) + math.log(1 + math.exp(-1.0))) / 2)


def test_an_objective_needs_a_term() -> None:
    with pytest.raises(ValueError, match="at least one term"):
        Objective([])


def test_without_stages_in_the_data_every_candidate_is_an_impression() -> None:
    logits = torch.tensor([[[0.3], [-1.0]]])
    batch = Batch(user={}, item={}, user_index=torch.zeros(1).long(), item_index=torch.zeros(1, 2).long(), labels=torch.ones(1, 2, 1),
                  where=torch.ones(1, 2).bool())  # fmt: skip
    shown = LossTerm("logloss", logloss, stages=(Stage.IMPRESSION,))
    drawn = LossTerm("logloss", logloss, stages=(Stage.RANDOM,))
    assert shown(batch, Output(logits)).item() > 0
    assert drawn(batch, Output(logits)).item() == 0


def test_terms_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="objective: every term needs a name of its own; got logloss, logloss"):
        Objective([LossTerm("logloss", logloss), LossTerm("logloss", logloss)])


class Learned(Term):
    """A term with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__("learned")
        self.scale = nn.Parameter(torch.tensor(3.0))

    def parameters(self) -> dict[str, nn.Parameter]:
        return {"scale": self.scale}

    def __call__(self, batch: Batch, output: Output) -> torch.Tensor:
        return self.scale.square()


def test_what_terms_learn_has_their_name() -> None:
    term = Learned()
    assert Objective([LossTerm("logloss", logloss), term]).parameters() == {"learned.scale": term.scale}


@pytest.mark.parametrize("staged", [True, False])
def test_what_was_shown_and_not_liked_may_stand_above_what_was_not_shown(staged: bool) -> None:
    """`impressed` is added to the labels of impressions, and of no other candidate."""
    torch.manual_seed(0)
    seen = []
    term = LossTerm("softmax", lambda logits, labels, *, where: seen.append(labels) or logits.sum(), lists="own", impressed=2.0)
    stage = torch.tensor([[0, 0, 1, 3, 4]], dtype=torch.int8)
    labels = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0]])
    batch = Batch(user={}, item={}, user_index=torch.zeros(1, dtype=torch.long), item_index=torch.zeros(1, 5, dtype=torch.long),
                  labels=labels.unsqueeze(-1), where=torch.ones(1, 5, dtype=torch.bool), stage=stage if staged else None)  # fmt: skip
    term(batch, Output(torch.randn(1, 5, 1)))
    assert seen[0].tolist() == [[3.0, 2.0, 0.0, 0.0, 0.0] if staged else [3.0, 2.0, 2.0, 2.0, 2.0]]
    assert batch.labels[..., 0].tolist() == labels.tolist()
    with pytest.raises(ValueError, match="impressed: must be 0 or more; got -1"):
        LossTerm("softmax", term.loss, lists="own", impressed=-1)
