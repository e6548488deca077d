"""Relaxed permutations: NeuralSort and SoftSort, each as the numbers A whose row-wise softmax is the permutation matrix.

    P(s)_i = softmax(A(s)_i)        row i: which candidate j stands at place i, best first

The chain back from A to the scores s is written out: it needs two or three passes over an [m, m] matrix where autograd takes a dozen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from prerank.losses.lists import floored

TINY = -80.0  # logarithm of a chance that is none: below, numbers are denormal, and a processor is many times slower with those


@dataclass(frozen=True)
class Relaxation(ABC):
    """temperature   smaller is nearer to the hard sort, which it reaches in the limit"""

    temperature: float

    @abstractmethod
    def scaled(self, s: Tensor, keep: Tensor) -> Tensor:
        """A(s), without regard to what is masked; masked scores are 0.  # [l, m] -> [l, m, m]"""

    @abstractmethod
    def pull(self, s: Tensor, keep: Tensor, slope: Tensor) -> Tensor:
        """dL/dA, 0 in masked rows and columns -> dL/ds.  # [l, m], [l, m, m] -> [l, m]"""

    def rows(self, s: Tensor, keep: Tensor) -> Tensor:
        """log P(s), differentiable; masked columns hold the floor.  # [l, m] -> [l, m, m]"""
        found: Tensor = _Scaled.apply(self, s, keep)
        return torch.log_softmax(floored(found, keep.unsqueeze(1)), dim=2)


@dataclass(frozen=True)
class NeuralSort(Relaxation):
    """A_ij = ((m + 1 - 2i) s_j - sum_k |s_j - s_k|) / t.

    Grover et al., "Stochastic Optimization of Sorting Networks via Continuous Relaxations", ICLR 2019 (eq. 5).
    """

    def scaled(self, s: Tensor, keep: Tensor) -> Tensor:
        number = keep.sum(dim=1)[:, None, None]
        places = torch.arange(1, s.shape[1] + 1, device=s.device).unsqueeze(1)  # [m, 1]
        apart = self._gaps(s, keep).abs_().sum(dim=2)  # [l, m]
        return ((number + 1 - 2 * places) * s.unsqueeze(1)).sub_(apart.unsqueeze(1)).div_(self.temperature)

    def pull(self, s: Tensor, keep: Tensor, slope: Tensor) -> Tensor:
        places = torch.arange(1, s.shape[1] + 1, device=s.device)
        factors = (keep.sum(dim=1, keepdim=True) + 1 - 2 * places).to(s.dtype)  # [l, m]
        apart = -slope.sum(dim=1)  # dL / d sum_k |s_j - s_k|
        signs = self._gaps(s, keep).sign_()  # [l, j, k]
        direct = torch.bmm(factors.unsqueeze(1), slope).squeeze(1)
        through = apart * signs.sum(dim=2) + torch.bmm(signs, apart.unsqueeze(2)).squeeze(2)
        return ((direct + through) / self.temperature).masked_fill(~keep, 0.0)

    @staticmethod
    def _gaps(s: Tensor, keep: Tensor) -> Tensor:
        """s_j - s_k, 0 for a masked k.  # [l, j, k]"""
        gaps = s.unsqueeze(2) - s.unsqueeze(1)
        return gaps if keep.all() else gaps.masked_fill_(~keep.unsqueeze(1), 0.0)


@dataclass(frozen=True)
class SoftSort(Relaxation):
    """A_ij = - |s_[i] - s_j|^power / t,  s_[i] the i-th largest.

    Prillo and Eisenschlos, "SoftSort: A Continuous Relaxation for the argsort Operator", ICML 2020 (eq. 4).
    """

    power: float = 2.0

    def scaled(self, s: Tensor, keep: Tensor) -> Tensor:
        gaps = self._ordered(s, keep)[0].unsqueeze(2) - s.unsqueeze(1)
        return (gaps.square_() if self.power == 2 else gaps.abs_().pow_(self.power)).div_(-self.temperature)

    def pull(self, s: Tensor, keep: Tensor, slope: Tensor) -> Tensor:
        ordered, places = self._ordered(s, keep)
        gaps = ordered.unsqueeze(2) - s.unsqueeze(1)
        steep = gaps if self.power == 2 else gaps.sign() * gaps.abs().pow(self.power - 1)
        steep.mul_(slope)
        of_place, of_candidate = steep.sum(dim=2), -steep.sum(dim=1)
        return (of_candidate.scatter_add(1, places, of_place) * (-self.power / self.temperature)).masked_fill(~keep, 0.0)

    @staticmethod
    def _ordered(s: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Scores from the largest on, 0 where there is no place, and whose they are.  # [l, m], [l, m]"""
        ordered, places = floored(s, keep).sort(dim=1, descending=True)  # masked ones at the end
        return ordered.masked_fill(~in_places(keep), 0.0), places


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, relaxation: Relaxation, s: Tensor, keep: Tensor) -> Tensor:
        s = s.masked_fill(~keep, 0.0)
        ctx.relaxation = relaxation
        ctx.save_for_backward(s, keep)
        return relaxation.scaled(s, keep)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[None, Tensor, None]:
        s, keep = ctx.saved_tensors
        return None, ctx.relaxation.pull(s, keep, slope.masked_fill(~keep.unsqueeze(1), 0.0)), None


@torch.no_grad()
def likeness(s: Tensor, labels: Tensor, keep: Tensor, of_scores: Relaxation, of_labels: Relaxation) -> tuple[Tensor, Tensor]:
    """- sum_j P(y)_ij log P(s)_ij, mean over the places i that there are, and its slope with respect to s.  # [l, m] -> [l], [l, m]

    With A for P(s) the slope is (P(s) - P(y)) / m: only that is pulled back to the scores.
    """
    whole = bool(keep.all())
    s, labels = s.masked_fill(~keep, 0.0), labels.masked_fill(~keep, 0.0)
    number = keep.sum(dim=1).clamp(min=1).to(s.dtype)
    scaled, wanted = of_scores.scaled(s, keep), of_labels.scaled(labels, keep)
    if not whole:
        scaled, wanted = (floored(x, keep.unsqueeze(1)) for x in (scaled, wanted))
    said, wanted = torch.log_softmax(scaled, dim=2), _softmax(wanted)
    if not whole:
        inside = in_places(keep).unsqueeze(2) & keep.unsqueeze(1)
        wanted = wanted.masked_fill_(~inside, 0.0)
    value = -torch.linalg.vecdot(wanted.flatten(1), said.flatten(1)) / number
    slope = said.clamp_(min=TINY).exp_().sub_(wanted)
    if not whole:
        slope = slope.masked_fill_(~inside, 0.0)
    return value, of_scores.pull(s, keep, slope) / number.unsqueeze(1)


def _softmax(scaled: Tensor) -> Tensor:
    return torch.softmax(scaled.clamp_(min=scaled.amax(dim=2, keepdim=True) + TINY), dim=2)


def in_places(keep: Tensor) -> Tensor:
    """Places 1..m of a list with m candidates left.  # bool [.., n]"""
    return torch.arange(keep.shape[-1], device=keep.device) < keep.sum(dim=-1, keepdim=True)
