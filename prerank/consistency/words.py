"""What each metric says, in one sentence."""

from __future__ import annotations

MEANING = {
    "overlap": "share of the ranking model's best {k} that the pre-ranker's best {k} hold",
    "regret": "share of the ranking scores of its best {k} that is lost by taking the pre-ranker's best {k}",
    "kendall": "rank correlation (tau_b) of all candidates: -1 reversed, 0 unrelated, 1 the same order",
    "weighted_tau": "rank correlation in which the first places count most",
    "rbo": "rank-biased overlap: agreement of the first d places, over all d, the first ones counting most",
    "ecpm_hit_ratio": "overlap of the {k} that would earn most: scores times bids",
    "ecpm_regret": "share of the expected income of the best {k} that is lost",
    "joint_recall": "of the {k} best, those still shown when the pre-ranker keeps {m} and the ranking model shows {k}",
    "joint_recall.pre_ranking": "of the {k} truly best, those among the {m} that the pre-ranker keeps",
    "joint_recall.ranking": "of the truly best that were kept, those that the ranking model shows",
    "joint_regret": "share of the worth of the {k} best that is lost by the time {k} are shown",
    "joint_regret.pre_ranking": "the part of it that no ranking model could have prevented",
    "stage_recall.impression": "of what the logged cascade showed, the share among the pre-ranker's best {k}",
    "stage_recall.ranking": "of what the logged cascade let into ranking, the share among the pre-ranker's best {k}",
    "auc": "does what was shown score above what the stage dropped; 1/2 is chance",
    "wanted": "share of the slice in the ranking model's best {k}",
    "chosen": "share of the slice in the pre-ranker's best {k}",
}


def meaning(metric: str) -> str:
    """
    >>> meaning("overlap@10")
    "share of the ranking model's best 10 that the pre-ranker's best 10 hold"
    """
    kind, _, numbers = metric.partition("@")
    k, _, m = numbers.partition("@")
    return MEANING[kind].format(k=k, m=m)
