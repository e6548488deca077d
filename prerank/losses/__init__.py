"""Losses are functions (logits, labels, *, where=None) -> scalar; an Objective is a sum of terms over a batch."""

from prerank.losses.contrastive import ContrastiveTerm, info_nce
from prerank.losses.objective import LossTerm, Objective, Term
from prerank.losses.pointwise import logloss

LOSSES = {"logloss": logloss, "info_nce": info_nce}  # functions of logits and labels
TERMS = {"cir": ContrastiveTerm}  # terms that also look at the representations

__all__ = ["LOSSES", "TERMS", "ContrastiveTerm", "LossTerm", "Objective", "Term", "info_nce", "logloss"]
