"""What each metric says, in one sentence, and which way is better; the page and docs/consistency.md say it alike."""

from __future__ import annotations

MEANING = {
    "overlap": "share of the ranking model's best K that the pre-ranker's best K hold",
    "regret": "share of the ranking scores of its best K that is lost by taking the pre-ranker's best K",
    "kendall": "rank correlation (tau_b) of all candidates: -1 reversed, 0 unrelated, 1 the same order",
    "weighted_tau": "rank correlation in which the first places count most",
    "rbo": "rank-biased overlap: agreement of the first d places, over all d, the first ones counting most",
    "ecpm_hit_ratio": "overlap of what would earn most: scores times bids",
    "ecpm_regret": "share of the expected income of the best K that is lost",
    "joint_recall": "@k@m: of the k best, those still shown when the pre-ranker keeps m and the ranking model shows k",
    "joint_recall.pre_ranking": "@k@m: of the k truly best, those that the pre-ranker keeps",
    "joint_recall.ranking": "@k@m: of the truly best that were kept, those that the ranking model shows",
    "joint_regret": "@k@m: share of the worth of the k best that is lost by the time k are shown",
    "joint_regret.pre_ranking": "@k@m: the part of it that is the pre-ranker's alone",
    "stage_recall.impression": "of what the logged cascade showed, the share among the pre-ranker's best K",
    "stage_recall.ranking": "of what the logged cascade let into ranking, the share among the pre-ranker's best K",
    "auc": "does what was shown score above what the stage dropped; 1/2 is chance",
    "wanted": "share of the slice in the ranking model's best K",
    "chosen": "share of the slice in the pre-ranker's best K",
}


def meaning(metric: str) -> str:
    return MEANING[metric.partition("@")[0]]


def lower_is_better(metric: str) -> bool:
    return "regret" in metric.partition("@")[0]
