"""What training minimises: a weighted sum of terms, each of which can be read in the log."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from prerank.batch import Batch, Output


class Term(ABC):
    """One named part of the objective: which objective (label) it judges, at which stages, with which weight.

    stages   stages of the cascade whose candidates it sees; None: all of them
    """

    def __init__(self, name: str, *, weight: float = 1.0, objective: int = 0, stages: tuple[int, ...] | None = None) -> None:
        self.name = name
        self.weight = weight
        self.objective = objective
        self.stages = stages

    def seen(self, batch: Batch) -> Tensor:
        """[B, C] bool: candidates that are neither padding nor of another stage."""
        if self.stages is None or batch.stage is None:
            return batch.where
        of_stage = torch.zeros_like(batch.where)
        for stage in self.stages:
            of_stage |= batch.stage == stage
        return batch.where & of_stage

    @abstractmethod
    def __call__(self, batch: Batch, output: Output) -> Tensor:
        """The term's value, a scalar, before its weight."""


class LossTerm(Term):
    """A loss function of logits and labels as a term; lists on the last axis [B, C]."""

    def __init__(self, name: str, loss: Callable[..., Tensor], *, weight: float = 1.0, objective: int = 0,
                 stages: tuple[int, ...] | None = None) -> None:  # fmt: skip
        super().__init__(name, weight=weight, objective=objective, stages=stages)
        self.loss = loss

    def __call__(self, batch: Batch, output: Output) -> Tensor:
        logits, labels = output.logits[..., self.objective], batch.labels[..., self.objective]
        # Click rows (C = 1) are never padded: no mask, no second pass over memory.
        where = None if self.stages is None and logits.shape[1] == 1 else self.seen(batch)
        return self.loss(logits, labels, where=where)


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

    def __call__(self, batch: Batch, output: Output) -> tuple[Tensor, dict[str, Tensor]]:
        """Total (with gradient) and {term: value} (detached)."""
        values = [term(batch, output) for term in self.terms]
        total = torch.stack([t.weight * v for t, v in zip(self.terms, values, strict=True)]).sum()
        return total, {t.name: v.detach() for t, v in zip(self.terms, values, strict=True)}

    def __repr__(self) -> str:
        return f"<Objective {' + '.join(f'{t.weight} {t.name}' for t in self.terms)}>"
