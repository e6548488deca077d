"""LCRON: the chance that the ground truth survives every stage of the cascade, the ranking model's included."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prerank.batch import Batch, Output
from prerank.losses.arf import weighted
from prerank.losses.lists import kept, mean_over_lists
from prerank.losses.objective import Lists, Term
from prerank.losses.parts import by_parts
from prerank.losses.relaxation import NeuralSort
from prerank.losses.survival import Passes, check_passes, places_of, speak, survival, truth


def lcron(logits: Tensor, labels: Tensor, *, where: Tensor | None = None, passes: Passes = 0.25, top: int | None = None,
          temperature: float = 1.0, scores: Tensor | None = None, then: Passes = 0.5, then_temperature: float = 0.1
          ) -> tuple[Tensor, Tensor]:  # fmt: skip
    """L_e2e and L_single of lists, from the chance P^q that a candidate is among the first q places of a stage.

        P^q_j    = sum_{i <= q} P_ij / sum_i P_ij                        P NeuralSort's relaxed permutation
        L_e2e    = BCE( P^q1(z)_j * P^q2(scores)_j,  y_j )               survives this stage and the ranking model's
        L_single = BCE( P^k(z)_j,  y_j )                                 k as many as the list has ground truth

    The ranking model is fixed: a candidate that it would stop anyway costs this stage little when it passes. One without a score is
    not stopped; without `scores` there is this stage alone.

    logits z, labels, scores [.., n], lists on the last axis; where False = left out, NaN in scores = none. Lists without ground truth,
    or of nothing else, say nothing, nor to L_e2e those of q1 candidates or fewer; BCE is a mean over candidates, the loss over lists.
    Wang et al., "Learning Cascade Ranking as One Network", ICML 2025. There all stages are trained together and the last one's order is
    the ground truth; here one model is trained, its next stage is the logged ranking model, and y is the label (our choices). Division
    by the column sum, and BCE with both halves, as in the released code, which holds the sum constant in the gradient; here the
    gradient is the value's.

    >>> [round(x.item(), 4) for x in lcron(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), passes=1)]
    [0.6931, 0.6931]
    """
    for name, share in (("passes", passes), ("then", then)):
        check_passes(name, share)
    for name, t in (("temperature", temperature), ("then_temperature", then_temperature)):
        if t <= 0:
            raise ValueError(f"{name}: must be positive; got {t}")
    if top is not None and top < 1:
        raise ValueError(f"top: must be at least 1; got {top}")

    def values(z: Tensor, keep: Tensor, y: Tensor, *score: Tensor) -> Tensor:
        real, number = truth(y, keep, top)
        rows = NeuralSort(temperature).rows(z, keep)
        through, stopped = survival(rows, keep, places_of(passes, keep))
        if score:
            with torch.no_grad():
                later, later_stopped = _later(score[0], keep, then, then_temperature)
            through, stopped = through + later, torch.logaddexp(stopped, through + later_stopped)  # 1 - ab = (1 - a) + a (1 - b)
        each = [_cross_entropy(through, stopped, real, keep), _cross_entropy(*survival(rows, keep, number), real, keep)]
        return torch.stack(each, dim=1)

    keep = kept(logits, where)
    others = [labels.to(logits.dtype), *([] if scores is None else [scores.to(logits.dtype)])]
    found = by_parts(values, logits, keep, *others)
    speaks = speak(labels, keep, top)
    return mean_over_lists(found[..., 0], speaks & (keep.sum(dim=-1) > places_of(passes, keep))), mean_over_lists(found[..., 1], speaks)


def _later(score: Tensor, keep: Tensor, then: Passes, temperature: float) -> tuple[Tensor, Tensor]:
    """log of the chances to pass the ranking model and to be stopped by it; one without a score passes.  # [l, m], [l, m]"""
    known = keep & ~score.isnan()
    places, number = places_of(then, known), known.sum(dim=1)
    found = survival(NeuralSort(temperature).rows(score.masked_fill(~known, 0.0), known), known, places)
    sure = ~known | (number <= places).unsqueeze(1)
    return found[0].masked_fill(sure, 0.0), found[1].masked_fill(sure, torch.finfo(score.dtype).min / 4)


def _cross_entropy(through: Tensor, stopped: Tensor, real: Tensor, keep: Tensor) -> Tensor:
    each = -(real * through + (1 - real) * stopped)
    return each.masked_fill(~keep, 0.0).sum(dim=1) / keep.sum(dim=1).clamp(min=1)


class LCRONTerm(Term):
    """L_e2e + L_single / (2 a^2) + log a of `lcron`; a is learned, from 1 on, as log a^2. What no list speaks to is left out.

    passes              candidates that this stage passes on: a count, or a share of the list
    then                candidates that the ranking model passes on (reads its score); default: this stage alone
    top                 largest labels that are the ground truth; default: all positives
    temperature, then_temperature   of NeuralSort, for logits and for scores
    lists               'own' or 'batch', as in LossTerm
    """

    def __init__(self, *, weight: float = 1.0, objective: int = 0, stages: tuple[int, ...] | None = None, passes: int | float = 0.25,
                 then: int | float | None = None, top: int | None = None, temperature: float = 1.0, then_temperature: float = 0.1,
                 lists: str = "own") -> None:  # fmt: skip
        super().__init__("lcron", weight=weight, objective=objective, stages=stages)
        self.needs_teacher = then is not None
        self.options = {"passes": passes, "top": top, "temperature": temperature, "then_temperature": then_temperature}
        self.options |= {} if then is None else {"then": then}
        lcron(torch.zeros(1, 1), torch.zeros(1, 1), **self.options)  # type: ignore[arg-type]  # a wrong option is told now
        self.lists, self.compares = Lists("lcron", lists), lists == "own"
        self.variances = {"single": nn.Parameter(torch.zeros(()))}  # logarithms

    def parameters(self) -> dict[str, nn.Parameter]:
        return self.variances

    def __call__(self, batch: Batch, output: Output) -> Tensor:
        own, seen = output.logits[..., self.objective], self.seen(batch)
        logits, labels, where = self.lists(own, batch.labels[..., self.objective], seen)
        scores = self.lists(own, self.given(batch, "teacher"), seen)[1] if self.needs_teacher else None
        cascade, single = lcron(logits, labels, where=where, scores=scores, **self.options)  # type: ignore[arg-type]
        return cascade + weighted((single,), self.variances)
