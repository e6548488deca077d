"""Ranking models: teachers, and what pre-rankers are measured against. A recipe is (schema, sizes, options) -> Ranker."""

from collections.abc import Callable

from prerank.rankers.linear import lr
from prerank.rankers.ranker import Network, Ranker, Wide

RANKERS: dict[str, Callable[..., Ranker]] = {"lr": lr}

__all__ = ["RANKERS", "Network", "Ranker", "Wide", "lr"]
