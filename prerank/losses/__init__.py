"""Losses are functions (logits, labels, *, where=None) -> scalar; an Objective is a sum of terms over a batch."""

from collections.abc import Callable

from torch import Tensor

from prerank.losses.alignment import CategoryAlignmentTerm
from prerank.losses.arf import ARFTerm, arf
from prerank.losses.complexity import ComplexityTerm
from prerank.losses.contrastive import ContrastiveTerm, info_nce
from prerank.losses.copr import COPRTerm, copr
from prerank.losses.distillation import DistillationTerm, odds_distillation, softmax_distillation
from prerank.losses.hard import HardMimicTerm, HardNegativesTerm
from prerank.losses.jrc import JRCTerm, jrc
from prerank.losses.lcron import LCRONTerm, lcron
from prerank.losses.listwise import approx_ndcg, listnet, softmax
from prerank.losses.mimic import GeneratorTerm, MimicTerm
from prerank.losses.objective import LossTerm, Objective, Term
from prerank.losses.pairwise import bpr, ranknet
from prerank.losses.pointwise import logloss, weighted_logloss
from prerank.losses.rankmax import am_rankmax, rankmax
from prerank.losses.sampled import SampledSoftmaxTerm
from prerank.losses.sorting import neuralsort, softsort
from prerank.losses.topk import dftopk

# Functions of logits and labels: those that judge each candidate alone, and those that compare the candidates of a list.
POINTWISE: dict[str, Callable[..., Tensor]] = {
    "logloss": logloss, "weighted_logloss": weighted_logloss,
}  # fmt: skip
LISTWISE: dict[str, Callable[..., Tensor]] = {
    "info_nce": info_nce, "bpr": bpr, "ranknet": ranknet, "softmax": softmax, "listnet": listnet, "approx_ndcg": approx_ndcg,
    "neuralsort": neuralsort, "softsort": softsort, "rankmax": rankmax, "am_rankmax": am_rankmax, "dftopk": dftopk,
}  # fmt: skip
LOSSES: dict[str, Callable[..., Tensor]] = {**POINTWISE, **LISTWISE}
# Terms that also look at the representations, or at several logits.
TERMS: dict[str, Callable[..., Term]] = {
    "cir": ContrastiveTerm, "in_batch_softmax": SampledSoftmaxTerm, "jrc": JRCTerm, "mimic": MimicTerm,
    "category_alignment": CategoryAlignmentTerm, "generator": GeneratorTerm, "complexity": ComplexityTerm,
    "hard_negatives": HardNegativesTerm, "hard_mimic": HardMimicTerm,
    "distillation": DistillationTerm, "copr": COPRTerm, "arf": ARFTerm, "lcron": LCRONTerm,
}  # fmt: skip

__all__ = [
    "LISTWISE", "LOSSES", "POINTWISE", "TERMS", "ARFTerm", "COPRTerm", "CategoryAlignmentTerm", "ComplexityTerm", "ContrastiveTerm",
    "DistillationTerm", "GeneratorTerm", "HardMimicTerm", "HardNegativesTerm", "JRCTerm", "LCRONTerm", "LossTerm", "MimicTerm",
    "Objective", "SampledSoftmaxTerm", "Term", "am_rankmax", "approx_ndcg", "arf", "bpr", "copr", "dftopk", "info_nce", "jrc", "lcron",
    "listnet", "logloss", "neuralsort", "odds_distillation", "rankmax", "ranknet", "softmax", "softmax_distillation", "softsort",
    "weighted_logloss",
]  # fmt: skip
