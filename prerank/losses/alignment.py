"""DAT's category alignment: item vectors of small categories are spread as those of the largest one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from prerank.batch import Batch, Output
from prerank.losses.objective import Term

PADDING = 0  # the row of a vocabulary that is no value


class CategoryAlignmentTerm(Term):
    """sum over categories c of || cov(V_major) - cov(V_c) ||_F^2  (DLP-KDD 2021, category alignment loss).

    V_c are the vectors of the batch's distinct items of category c: the heads of the objective's first group, at length 1
    where they are compared by cosine; the covariance divides by n - 1. The major category is the one with most items in the
    batch. Our choices, where the source is silent: each distinct item counts once; an item with several values (genres)
    belongs to each; a category with fewer than `at_least` items in the batch has no covariance worth matching and is left out;
    gradients flow into both sides of the difference.

    feature    the item feature that is the category (categorical, multi-valued, or in bins)
    at_least   items that a category needs in the batch; 2 is the least that have a covariance
    """

    needs_towers = True

    def __init__(self, *, weight: float = 1.0, objective: int = 0, stages: tuple[int, ...] | None = None,
                 feature: str | None = None, at_least: int = 2) -> None:  # fmt: skip
        super().__init__("category_alignment", weight=weight, objective=objective, stages=stages)
        if feature is None:
            raise ValueError("feature: must name the item feature that is the category; got none")
        if at_least < 2:
            raise ValueError(f"at_least: must be at least 2; got {at_least}")
        self.feature = feature
        self.at_least = at_least
        self.reads = (feature,)

    def __call__(self, batch: Batch, output: Output) -> Tensor:
        assert output.item is not None
        index = next(i for i, g in enumerate(output.groups) if g.objective == self.objective)
        heads = output.item.groups[index].float()
        vectors = (F.normalize(heads, dim=2) if output.groups[index].cosine else heads).flatten(1)  # [N, H*K]
        members = self._members(batch)
        if len(members) < 2:
            return output.logits.new_zeros(())
        major, *others = (vectors.index_select(0, rows).T.cov() for rows in members)  # [H*K, H*K] each
        return torch.stack([(major - other).square().sum() for other in others]).sum()

    def _members(self, batch: Batch) -> list[Tensor]:
        """Rows of the items of each category that is large enough, the largest first."""
        met = torch.zeros(len(batch.item[self.feature]), dtype=torch.bool, device=batch.where.device)
        met[batch.item_index[self.seen(batch)]] = True
        values = batch.item[self.feature].long()
        values = values.unsqueeze(1) if values.dim() == 1 else values
        rows, places = ((values != PADDING) & met.unsqueeze(1)).nonzero(as_tuple=True)
        pairs = torch.stack([values[rows, places], rows], dim=1).unique(dim=0)  # by category; a value given twice counts once
        sizes = pairs[:, 0].unique_consecutive(return_counts=True)[1]
        found = [part for part in pairs[:, 1].split(sizes.tolist()) if len(part) >= self.at_least]
        return sorted(found, key=len, reverse=True)
