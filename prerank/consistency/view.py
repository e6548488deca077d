"""One pre-ranker beside the ranking model, on candidates that both have scored; sorted once, asked for every metric."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prerank.consistency.scored import Scored
from prerank.metrics import Agreement, Cascade, Grouped, ecpm

Whose = Literal["s", "against"]


class View:
    """scored: candidates with a finite t; whose: the pre-ranker, or the one it is compared with."""

    def __init__(self, scored: Scored, whose: Whose) -> None:
        given = getattr(scored, whose)
        assert given is not None
        as_worth = getattr(scored, f"{whose}_worth")
        self.scored, self.s = scored, given
        self.s_worth: NDArray[np.float64] = given if as_worth is None else as_worth

    @cached_property
    def t_worth(self) -> NDArray[np.float64] | None:
        """The ranking scores as what can be added up; None when they are negative and nobody said that they are logits."""
        values = self.scored.t if self.scored.t_worth is None else self.scored.t_worth
        return None if (values < 0).any() else values

    @cached_property
    def both(self) -> Agreement:
        return Agreement(self.s, self.scored.t, groups=self.scored.request)

    @cached_property
    def shares(self) -> Agreement | None:
        """The same with ranking scores that regret can add up."""
        if self.t_worth is None or self.t_worth is self.scored.t:
            return None if self.t_worth is None else self.both
        return Agreement(self.s, self.t_worth, groups=self.scored.request)

    @cached_property
    def earned(self) -> Agreement | None:
        """Both scores times the bid; None without bids, or where a score is no probability."""
        if self.scored.bid is None or self.t_worth is None or (self.s_worth < 0).any():
            return None
        return ecpm(self.s_worth, self.t_worth, self.scored.bid, groups=self.scored.request)

    @cached_property
    def cascade(self) -> Cascade:
        t = self.scored.t if self.t_worth is None else self.t_worth
        return Cascade(self.s, t, truth=self.scored.truth, groups=self.scored.request)

    def ranks(self, at: tuple[int, ...], p: float) -> dict[str, Grouped]:
        """Overlap, regret, taus and RBO."""
        found = {f"overlap@{k}": self.both.overlap(k) for k in at}
        if self.shares:
            found |= {f"regret@{k}": self.shares.regret(k) for k in at}
        return found | {"kendall": self.both.kendall(), "weighted_tau": self.both.weighted_tau(), "rbo": self.both.rbo(p)}

    def income(self, at: tuple[int, ...]) -> dict[str, Grouped]:
        """The same of what would be earned."""
        if self.earned is None:
            return {}
        return {f"ecpm_hit_ratio@{k}": self.earned.overlap(k) for k in at} | {f"ecpm_regret@{k}": self.earned.regret(k) for k in at}

    def played(self, keep: int, show: int) -> dict[str, Grouped]:
        """The cascade played again."""
        play, at = self.cascade.play(keep=keep, show=show), f"@{show}@{keep}"
        found: dict[str, Grouped | None] = {"joint_recall": play.joint_recall, "joint_regret": play.regret}
        if self.scored.truth is not None:  # without, the ranking model is the truth and loses nothing
            found |= {"joint_recall.pre_ranking": play.kept, "joint_recall.ranking": play.shown,
                      "joint_regret.pre_ranking": play.regret_pre_ranking}  # fmt: skip
        return {name + at: g for name, g in found.items() if g is not None}
