"""What training minimises: a weighted sum of terms, each of which can be read in the log."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from prerank.batch import Batch, Output, Stage

NEEDS = {  # what a term says whose data lack what it reads
    "teacher": "reads the ranking model's score of each candidate, which the data do not give; set data.teacher",
    "bid": "reads the bid of each candidate, which the data do not give; set data.bid",
}

CLICK_ROWS = ("compares the candidates of a list, and every list here holds one (click rows); "
              "set lists: batch to compare all rows of a batch")  # fmt: skip


class Term(ABC):
    """One named part of the objective: which objective (label) it judges, at which stages, with which weight.

    stages        stages of the cascade whose candidates it sees; None: all of them
    reads         item features whose columns it looks at
    needs_guess   it compares the towers' guesses of each other, which a model must make (`Representation.guess`)
    needs_towers  it looks at the sides' vectors, which a ranker does not have
    needs_choice  it prices the model's choice of fields, which a model must make (FSCD's gates)
    needs_teacher, needs_bid   it reads the ranking model's score, the bid, of every candidate, which the data must give
    compares      it compares the candidates of a list of their own, so that click rows (C = 1) say nothing to it
    """

    reads: tuple[str, ...] = ()
    needs_guess: bool = False
    needs_towers: bool = False
    needs_choice: bool = False
    needs_teacher: bool = False
    needs_bid: bool = False
    compares: bool = False

    def __init__(self, name: str, *, weight: float = 1.0, objective: int = 0, stages: tuple[int, ...] | None = None) -> None:
        self.name = name
        self.weight = weight
        self.objective = objective
        self.stages = stages

    def seen(self, batch: Batch) -> Tensor:
        """[B, C] bool: candidates that are neither padding nor of another stage."""
        if self.stages is None:
            return batch.where
        if batch.stage is None:  # all are impressions
            return batch.where if Stage.IMPRESSION in self.stages else torch.zeros_like(batch.where)
        of_stage = torch.zeros_like(batch.where)
        for stage in self.stages:
            of_stage |= batch.stage == stage
        return batch.where & of_stage

    def given(self, batch: Batch, column: Literal["teacher", "bid"]) -> Tensor:
        """The batch's teacher scores or bids [B, C]. Raises ValueError where it has none."""
        found: Tensor | None = getattr(batch, column)
        if found is None:
            raise ValueError(f"objective '{self.name}': {NEEDS[column]}")
        return found

    def parameters(self) -> dict[str, nn.Parameter]:
        """What the term learns itself, by name: trained without decay and kept in the checkpoint."""
        return {}

    @abstractmethod
    def __call__(self, batch: Batch, output: Output) -> Tensor:
        """The term's value, a scalar, before its weight."""


class LossTerm(Term):
    """A loss function of logits and labels as a term; lists on the last axis [B, C].

    lists       of a loss that compares candidates: 'own', each request's list; 'batch', all rows of a batch as one list, which gives
                click rows (C = 1) something to be compared with. None: the loss judges each candidate alone
    impressed   added to the label of impressions: with 1, what was shown and not liked stands above what was not shown
                (RankTower's impressed label)

    Raises ValueError.
    """

    def __init__(self, name: str, loss: Callable[..., Tensor], *, weight: float = 1.0, objective: int = 0,
                 stages: tuple[int, ...] | None = None, lists: str | None = None, impressed: float = 0.0) -> None:  # fmt: skip
        super().__init__(name, weight=weight, objective=objective, stages=stages)
        if not 0 <= impressed < float("inf"):
            raise ValueError(f"impressed: must be 0 or more; got {impressed}")
        self.loss = loss
        self.impressed = impressed
        self.lists = None if lists is None else Lists(name, lists)
        self.compares = lists == "own"

    def __call__(self, batch: Batch, output: Output) -> Tensor:
        logits, labels = output.logits[..., self.objective], batch.labels[..., self.objective]
        # Click rows (C = 1) are never padded: no mask, no second pass over memory.
        where = None if self.stages is None and logits.shape[1] == 1 else self.seen(batch)
        if self.impressed and batch.stage is not None:  # else all are impressions
            labels = labels + self.impressed * (batch.stage == Stage.IMPRESSION)
        elif self.impressed:
            labels = labels + self.impressed
        if self.lists is not None:
            logits, labels, where = self.lists(logits, labels, where)
        return self.loss(logits, labels, where=where)


class Lists:
    """Which candidates a loss compares with one another: 'own' lists, or the whole 'batch' as one.

    Own lists of a single candidate say nothing, whatever the model does, so the first batch is checked; a later one may by chance
    hold only short lists. Raises ValueError.
    """

    def __init__(self, name: str, lists: str) -> None:
        if lists not in ("own", "batch"):
            raise ValueError(f"lists: must be own or batch; got '{lists}'")
        self.name = name
        self.pooled = lists == "batch"
        self.checked = False

    def __call__(self, logits: Tensor, labels: Tensor, where: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """[B, C] each -> the same, or [1, B*C]."""
        if self.pooled:
            return logits.reshape(1, -1), labels.reshape(1, -1), None if where is None else where.reshape(1, -1)
        if not self.checked and logits.shape[1] == 1:
            raise ValueError(f"objective '{self.name}': {CLICK_ROWS}, or take a loss such as logloss")
        self.checked = True
        return logits, labels, where


class Objective:
    """The sum of its terms; calling it gives the total and every term's own value.

    >>> from prerank.losses.pointwise import logloss
    >>> Objective([LossTerm("logloss", logloss)])
    <Objective 1.0 logloss>
    """

    def __init__(self, terms: Sequence[Term]) -> None:
        if not terms:
            raise ValueError("objective: needs at least one term; got none")
        self.terms = list(terms)
        names = [t.name for t in self.terms]
        if len(set(names)) < len(names):
            raise ValueError(f"objective: every term needs a name of its own; got {', '.join(names)}")

    def parameters(self) -> dict[str, nn.Parameter]:
        """The terms' own parameters, 'term.parameter' each."""
        return {f"{t.name}.{name}": p for t in self.terms for name, p in t.parameters().items()}

    def __call__(self, batch: Batch, output: Output) -> tuple[Tensor, dict[str, Tensor]]:
        """Total (with gradient) and {term: value} (detached)."""
        values = [term(batch, output) for term in self.terms]
        total = torch.stack([t.weight * v for t, v in zip(self.terms, values, strict=True)]).sum()
        return total, {t.name: v.detach() for t, v in zip(self.terms, values, strict=True)}

    def __repr__(self) -> str:
        return f"<Objective {' + '.join(f'{t.weight} {t.name}' for t in self.terms)}>"
