"""Recall@K and NDCG@K in a pool of candidates: per list, so that a bootstrap can draw lists or users.

    pool = Pool(dataset, "test", config.evaluation)
    measured = pool.measure(model, device)
    measured.metrics["recall@100"].value, pool.said

The pool's random items are drawn from its own seed, in batches of its own size: every model is asked the same questions. A list without
a positive has no value and is not scored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prerank.config import ConfigError, Evaluation
from prerank.data import Dataset, ListLoader
from prerank.metrics import Grouped, ndcg, recall
from prerank.training.predict import evaluating

PAIRS = 1 << 16  # candidates scored at a time, about


@dataclass(frozen=True, slots=True)
class Measured:
    """metrics   {'recall@20': one value a list [L], ...};   users   [L] rows of dataset.users whose lists they are"""

    metrics: dict[str, Grouped]
    users: NDArray[np.int32]

    def of_users(self, name: str) -> Grouped:
        """A metric's mean in the lists of each user, weighted by their number: the same metric, for a bootstrap that draws users."""
        values = self.metrics[name].values
        user = np.unique(self.users, return_inverse=True)[1]
        known = ~np.isnan(values)
        lists = np.bincount(user[known], minlength=user.max(initial=-1) + 1)
        with np.errstate(invalid="ignore"):
            return Grouped(np.bincount(user[known], values[known], minlength=len(lists)) / lists, lists.astype(np.float64))


class Pool:
    """The candidates of a split's lists.

    said   what the pool is, in words, for tables
    """

    def __init__(self, dataset: Dataset, split: str, settings: Evaluation, objective: int = 0) -> None:
        """Raises ConfigError or DataError when there is no such pool, or no list in it with a positive."""
        self.dataset, self.settings, self.objective = dataset, settings, objective
        self.loader = ListLoader(dataset, split, settings, 1, seed=settings.seed, shuffle=False, where="evaluation")
        sampler = self.loader.sampler
        sampler.kept = sampler.kept[self.loader.lists.positive[sampler.kept]]
        if not len(sampler.kept):
            raise ConfigError(f"evaluation: no list of {split} rows has a positive")
        self.loader.batch_size = max(1, PAIRS // sampler.longest)
        self.said = f"{len(sampler.kept):,} lists by {settings.by} with a positive, {settings.pool()}"
        if settings.filter and "random" in settings.stages:
            self.said += ", without the items of the user's train rows"

    def measure(self, model: nn.Module, device: torch.device | str = "cpu") -> Measured:
        """Score every list of the pool."""
        names = [(metric, k) for k in self.settings.at for metric in (recall, ndcg)]
        parts: list[list[NDArray[np.float64]]] = []
        users = []
        with evaluating(model), torch.inference_mode():
            for batch in self.loader.epoch(0):
                moved = batch.to(device)
                scores = model(moved).logits[..., self.objective].float().cpu()
                labels = batch.labels[..., self.objective]
                where = _decisive(scores, labels, batch.where, max(self.settings.at)).numpy()
                parts.append([metric(scores.numpy(), labels.numpy(), k, where=where).values for metric, k in names])
        for first in range(0, len(self.loader.sampler.kept), 1 << 16):
            lists = self.loader.sampler.kept[first : first + (1 << 16)]
            users.append(self.dataset.user_row[self.loader.lists.order[self.loader.lists.offsets[lists]]])
        values = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return Measured({f"{m.__name__}@{k}": Grouped(v, np.ones(len(v))) for (m, k), v in zip(names, values, strict=True)},
                        np.concatenate(users))  # fmt: skip


def _decisive(scores: Tensor, labels: Tensor, where: Tensor, k: int) -> Tensor:
    """Candidates that decide about the first K: positives, and whatever scores at least as the K-th. The metrics sort only these."""
    seen = scores.masked_fill(~where, -torch.inf)
    last = seen.topk(min(k, seen.shape[1]), dim=1).values[:, -1:]  # [B, 1]
    return where & ((seen >= last) | (labels > 0))
