"""Losses of what a tower guesses of the other side's vectors (`Representation.guess`): DAT's mimic and HIT's generators.

Both look at positives only, from both sides: a_u is compared with the item's vector, a_v with the user's, and neither
vector feels it (stop-gradient). The vector is what the other tower means, not how it is scaled for scoring: in a cosine group
its heads at length 1 (so the temperature, which a prepared user carries, is left out), in a dot group the heads as they are.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from prerank.batch import Batch, Group, Output, Representation
from prerank.losses.objective import Term


class GuessTerm(Term):
    """user * mean over positives of distance(a_u, sg(v))  +  item * mean over positives of distance(a_v, sg(u)).

    user, item   weights of the two sides
    """

    needs_guess = True

    def __init__(self, name: str, *, weight: float, objective: int, stages: tuple[int, ...] | None, user: float, item: float) -> None:
        super().__init__(name, weight=weight, objective=objective, stages=stages)
        for side, value in (("user", user), ("item", item)):
            if value < 0:
                raise ValueError(f"{side}: must be at least 0; got {value}")
        self.user = user
        self.item = item

    @abstractmethod
    def distance(self, guess: Tensor, target: Tensor) -> Tensor:
        """[P, K], [P, K] -> [P]."""

    def __call__(self, batch: Batch, output: Output) -> Tensor:
        users, items = positives(self, batch)  # [P], [P]
        if users.numel() == 0:
            return output.logits.new_zeros(())
        assert output.user is not None
        assert output.item is not None
        of_user, of_item = guess(output, "user", self.objective), guess(output, "item", self.objective)
        u, v = target(output.user, output.groups, self.objective), target(output.item, output.groups, self.objective)
        far_u = self.distance(of_user.index_select(0, users), v.index_select(0, items)).mean()
        far_v = self.distance(of_item.index_select(0, items), u.index_select(0, users)).mean()
        return self.user * far_u + self.item * far_v


class MimicTerm(GuessTerm):
    """DAT's adaptive mimic (DLP-KDD 2021):  .5 ||a_u - sg(v)||^2 + .5 ||a_v - sg(u)||^2  where y = 1.

    The squared distance is summed over the vector and averaged over the batch's positives (our choice: the paper divides by
    all rows, so that its strength depends on how many are positive). Without positives it is 0.
    """

    def __init__(self, *, weight: float = 1.0, objective: int = 0, stages: tuple[int, ...] | None = None,
                 user: float = 0.5, item: float = 0.5) -> None:  # fmt: skip
        super().__init__("mimic", weight=weight, objective=objective, stages=stages, user=user, item=item)

    def distance(self, guess: Tensor, target: Tensor) -> Tensor:
        return (guess - target).square().sum(dim=1)


class GeneratorTerm(GuessTerm):
    """HIT's generation loss (CIKM 2025):  1 - cos(g_u, sg(v))  +  1 - cos(g_v, sg(u))  where y = 1.

    Averaged over the batch's positives; several heads are compared flattened. In the released code the rows without a click are
    in the average too (its loss is handed the labels and does not look at them); here they are not, as DAT's. Without positives
    it is 0.
    """

    def __init__(self, *, weight: float = 1.0, objective: int = 0, stages: tuple[int, ...] | None = None,
                 user: float = 1.0, item: float = 1.0) -> None:  # fmt: skip
        super().__init__("generator", weight=weight, objective=objective, stages=stages, user=user, item=item)

    def distance(self, guess: Tensor, target: Tensor) -> Tensor:
        return 1 - F.cosine_similarity(guess, target, dim=1)


def positives(term: Term, batch: Batch) -> tuple[Tensor, Tensor]:
    """Rows of `batch.user` and of `batch.item` of every positive that the term sees.  # [P], [P]"""
    positive = (batch.labels[..., term.objective] > 0) & term.seen(batch)  # [B, C]
    rows, columns = positive.nonzero(as_tuple=True)
    return batch.user_index[rows], batch.item_index[rows, columns]


def target(representation: Representation, groups: tuple[Group, ...], objective: int) -> Tensor:
    """What is to be guessed: the heads of an objective's first group, without gradient.  # [rows, H*K]"""
    index = _first(groups, objective)
    heads = representation.groups[index].detach().float()
    return (F.normalize(heads, dim=2) if groups[index].cosine else heads).flatten(1)


def guess(output: Output, side: str, objective: int) -> Tensor:
    """What a side guesses of `target`: its part of the guess.  # [rows, H*K]"""
    representation = output.user if side == "user" else output.item
    if representation is None or representation.guess is None:
        raise ValueError(f"the model's {side} tower must guess the other side's vectors, as dat does; it does not")
    widths = [g.width * (g.item_heads if side == "user" else g.user_heads) for g in output.groups]
    index = _first(output.groups, objective)
    return torch.split(representation.guess.float(), _cut(widths, representation.guess.shape[1]), dim=1)[index]


def _first(groups: tuple[Group, ...], objective: int) -> int:
    return next(i for i, g in enumerate(groups) if g.objective == objective)


def _cut(widths: list[int], total: int) -> list[int]:
    """The first of these widths that add up to the total: further groups (an id head) are not guessed."""
    kept: list[int] = []
    while sum(kept) < total:
        kept.append(widths[len(kept)])
    return kept
