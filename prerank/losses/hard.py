"""Losses against the batch's hardest items: those that a user's vector is nearest to although they are not its positives.

Interpretation: the source is not public (IHM-DAT is only named, in arXiv 2604.19269). Both terms mine alike: for every user with a
positive in the batch, the n distinct items of the batch whose vectors have the largest cosine with the user's, its own positives
of this batch left out. Which items those are is found without gradient.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from prerank.batch import Batch, Output
from prerank.losses.mimic import guess, positives
from prerank.losses.objective import Term


@dataclass(frozen=True, slots=True)
class Mined:
    """Positives and hard negatives of a batch.

    users, items   [P] rows of the batch's positives; user   [P] the row of `queries` that each belongs to
    queries        [Q] the distinct users among them
    hardest        [Q, n] rows of items, and `real` [Q, n]: false where a user has fewer negatives than n
    """

    users: Tensor
    items: Tensor
    user: Tensor
    queries: Tensor
    hardest: Tensor
    real: Tensor


class HardTerm(Term):
    """mean over positives (q, v) of  -log e^{s(q,v)/t} / ( e^{s(q,v)/t} + sum over mined v' of e^{s(q,v')/t} ),  s the cosine.

    negatives     n, hard negatives a user
    temperature   t
    """

    needs_towers = True

    def __init__(self, name: str, *, weight: float, objective: int, stages: tuple[int, ...] | None, negatives: int,
                 temperature: float) -> None:  # fmt: skip
        super().__init__(name, weight=weight, objective=objective, stages=stages)
        if negatives < 1:
            raise ValueError(f"negatives: must be at least 1; got {negatives}")
        if temperature <= 0:
            raise ValueError(f"temperature: must be positive; got {temperature}")
        self.negatives = negatives
        self.temperature = temperature

    @abstractmethod
    def vectors(self, output: Output) -> tuple[Tensor, Tensor]:
        """What asks, of every user [U, K], and what answers, of every item [N, K]; of any length."""

    def __call__(self, batch: Batch, output: Output) -> Tensor:
        users, items = positives(self, batch)
        if users.numel() == 0:
            return output.logits.new_zeros(())
        mined = mine(*self._towers(output), users, items, self.negatives)
        asking, answering = (F.normalize(x.float(), dim=1) for x in self.vectors(output))
        queries = asking.index_select(0, mined.queries)  # [Q, K]
        against = answering[mined.hardest]  # [Q, n, K]
        hard = torch.bmm(against, queries.unsqueeze(2)).squeeze(2) / self.temperature  # [Q, n]
        hardness = hard.masked_fill(~mined.real, torch.finfo(hard.dtype).min / 4).logsumexp(dim=1)  # [Q]
        own = (asking.index_select(0, users) * answering.index_select(0, items)).sum(dim=1) / self.temperature  # [P]
        return F.softplus(hardness[mined.user] - own).mean()

    def _towers(self, output: Output) -> tuple[Tensor, Tensor]:
        """The towers' own vectors for the objective: the last level's heads, flattened.  # [U, K], [N, K]"""
        if output.user is None or output.item is None:
            raise ValueError(f"objective '{self.name}': compares user and item vectors, which a ranking model does not have")
        index = next(i for i, g in enumerate(output.groups) if g.objective == self.objective)
        group = output.groups[index]
        heads = output.user.groups[index][:, -(group.user_heads // group.levels) :]
        u, v = heads.flatten(1), output.item.groups[index].flatten(1)
        if u.shape[1] != v.shape[1]:
            raise ValueError(f"objective '{self.name}': user and item heads must be as many; "
                             f"there are {heads.shape[1]} and {group.item_heads}")  # fmt: skip
        return u, v


class HardNegativesTerm(HardTerm):
    """In-batch softmax over mined hard negatives, of the towers' vectors: q = u.

    Unlike the softmax over all items of the batch (`in_batch_softmax`), only the items that are mistaken for positives push.
    """

    def __init__(self, *, weight: float = 1.0, objective: int = 0, stages: tuple[int, ...] | None = None, negatives: int = 16,
                 temperature: float = 0.2) -> None:  # fmt: skip
        super().__init__("hard_negatives", weight=weight, objective=objective, stages=stages, negatives=negatives, temperature=temperature)

    def vectors(self, output: Output) -> tuple[Tensor, Tensor]:
        return self._towers(output)


class HardMimicTerm(HardTerm):
    """Implicit mimic: the augmented vector is to find its positive among the items that its tower mistakes for one: q = a_u, sg(v).

    Where DAT's mimic says explicitly which vector a_u is (||a_u - v||^2), this says only that v must lie nearer to it than the
    batch's hardest items. The items do not feel it.
    """

    needs_guess = True

    def __init__(self, *, weight: float = 1.0, objective: int = 0, stages: tuple[int, ...] | None = None, negatives: int = 16,
                 temperature: float = 0.2) -> None:  # fmt: skip
        super().__init__("hard_mimic", weight=weight, objective=objective, stages=stages, negatives=negatives, temperature=temperature)

    def vectors(self, output: Output) -> tuple[Tensor, Tensor]:
        return guess(output, "user", self.objective), self._towers(output)[1].detach()


@torch.no_grad()
def mine(user_vectors: Tensor, item_vectors: Tensor, users: Tensor, items: Tensor, negatives: int) -> Mined:
    """Vectors [U, K], [N, K] and the rows of the positives [P], [P] -> the hardest items of each user among them."""
    queries, user = users.unique(return_inverse=True)
    u, v = (F.normalize(x.float(), dim=1) for x in (user_vectors, item_vectors))
    cosine = u.index_select(0, queries) @ v.T  # [Q, N]
    cosine[user, items] = -torch.inf
    found = cosine.topk(min(negatives, len(item_vectors)), dim=1, sorted=False)
    return Mined(users, items, user, queries, found.indices, found.values > -torch.inf)
