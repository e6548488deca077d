"""Requests through a planted cascade: recall -> pre-ranking -> ranking -> impression -> click -> conversion, vectorised by blocks.

For a list of L shown items a request recalls 8 L candidates (half by popularity, half by the taste of the user's group). A very rough look
at their true utility sends 4 L to pre-ranking, a less rough one 2 L to ranking, and the L best by a better look, at the bid too, are shown.
A candidate's stage is the last one it reached.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from prerank.batch import Stage
from prerank.datasets.world import HOURS, SCALE, SCENES, Array, World, angle_at, turned

START_MS = 1_767_225_600_000  # 2026-01-01 00:00 UTC
DAY_MS = 86_400_000
RECALLED = 8  # candidates a request, in lists
KEPT = {Stage.PRE_RANKING: 4, Stage.RANKING: 2, Stage.IMPRESSION: 1}  # lists that reach a stage
NOISE = {Stage.PRE_RANKING: 4.0, Stage.RANKING: 3.0, Stage.IMPRESSION: 2.0}  # of the score that lets them in, in logits
BID_WEIGHT = 0.3  # of log bid, in the ranking stage
CLICK_RATE, CONVERSION_RATE = 0.25, 0.1
CLICK_DELAY_MS, CONVERSION_DELAY_MS = 30_000, 7_200_000  # means of exponential waits
BLOCK = 4096  # requests


@dataclass(frozen=True)
class Requests:
    """R requests in order of time; all [R]."""

    user: Array
    time_ms: Array
    scene: Array

    @property
    def hour(self) -> Array:
        return (self.time_ms // 3_600_000 % HOURS).astype(np.int8)


def requests(world: World, count: int, days: int, rng: np.random.Generator) -> Requests:
    """Who asks when: active users more often, evenings more than nights."""
    user = np.searchsorted(np.cumsum(world.activity)[:-1], rng.random(count))
    daily = 1 + 0.6 * np.sin(2 * np.pi * (np.arange(HOURS) - 13) / HOURS)
    hour = rng.choice(HOURS, count, p=daily / daily.sum())
    time_ms = START_MS + rng.integers(0, days, count) * DAY_MS + hour * 3_600_000 + rng.integers(0, 3_600_000, count)
    return Requests(user=user, time_ms=np.sort(time_ms), scene=rng.integers(0, SCENES, count))


def run(world: World, asked: Requests, list_size: int, days: int, drift: float, rng: np.random.Generator) -> Iterator[dict[str, Array]]:
    """Blocks of candidates, flat and grouped by request, best first: request, item, stage, and both utilities before their intercepts."""
    for first in range(0, len(asked.user), BLOCK):
        rows = np.arange(first, min(first + BLOCK, len(asked.user)))
        user, time_ms, scene, hour = asked.user[rows], asked.time_ms[rows], asked.scene[rows], asked.hour[rows]
        item = recall(world, user, RECALLED * list_size, rng)  # [R, M]
        taste_now = turned(world.user_vector[user], angle_at((time_ms - START_MS) / (days * DAY_MS), drift))
        taste = SCALE * np.einsum("rk,rmk->rm", taste_now, world.item_vector[item])  # [R, M]
        asker = world.user_bias[user] + world.scene_bias[scene] + world.hour_bias[hour]
        utility = taste + world.item_bias[item] + asker[:, None]
        conversion = taste / 2 + world.conversion_bias[item]
        order, stage = select(utility, np.log(world.bid[item]), repeated(item), list_size, rng)
        kept = stage >= 0
        yield {
            "request": np.broadcast_to(rows[:, None], order.shape)[kept],
            "item": np.take_along_axis(item, order, 1)[kept],
            "stage": stage[kept],
            "utility": np.take_along_axis(utility, order, 1)[kept],
            "conversion": np.take_along_axis(conversion, order, 1)[kept],
        }


def recall(world: World, user: Array, count: int, rng: np.random.Generator) -> Array:
    """Candidate items [R, count] of each user: half by popularity, half by popularity inside item groups the user's group likes."""
    blind = np.searchsorted(np.cumsum(world.popularity)[:-1], rng.random((len(user), count // 2)))
    liked = np.cumsum(world.group_affinity, axis=1)[world.user_group[user]]  # [R, item groups]
    group = (rng.random((len(user), count - count // 2))[:, :, None] > liked[:, None, :-1]).sum(2)
    by_group = np.argsort(world.item_group, kind="stable")
    total = np.cumsum(world.popularity[by_group])
    sizes = np.bincount(world.item_group, minlength=world.group_affinity.shape[1])
    last = np.cumsum(sizes)
    high = np.concatenate([[0.0], total])[last]  # cumulated popularity at each group's end
    low = np.concatenate([[0.0], high[:-1]])
    within = np.searchsorted(total, low[group] + rng.random(group.shape) * (high - low)[group], side="right")
    return np.concatenate([blind, by_group[np.minimum(within, len(by_group) - 1)]], axis=1)


def repeated(item: Array) -> Array:
    """True where a row of [R, M] has had the item before."""
    order = np.argsort(item, axis=1, kind="stable")
    ordered = np.take_along_axis(item, order, 1)
    again = np.zeros_like(item, dtype=bool)
    np.put_along_axis(again, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return again


def select(utility: Array, log_bid: Array, never: Array, list_size: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Candidates [R, M] -> their order, best first, and how far each came, in that order (Stage; -1 where `never`)."""
    scores = {stage: utility + noise * rng.standard_normal(utility.shape) for stage, noise in NOISE.items()}
    ranking = scores[Stage.IMPRESSION] + BID_WEIGHT * log_bid
    alive = ~never
    stage = np.where(never, -1, Stage.RECALL).astype(np.int8)
    for reached, lists in KEPT.items():
        score = ranking if reached == Stage.IMPRESSION else scores[reached]
        alive = _best(np.where(alive, score, -np.inf), lists * list_size)
        stage[alive] = reached
    order = np.argsort(stage * 1e3 - ranking, axis=1)  # no ranking score comes near 1e3
    return order, np.take_along_axis(stage, order, 1)


def _best(score: Array, count: int) -> Array:
    """Mask of the `count` largest of each row; never one at -inf."""
    threshold = -np.partition(-score, count - 1, axis=1)[:, count - 1 : count]
    return (score >= threshold) & np.isfinite(score)


def intercept(utility: Array, rate: float) -> float:
    """c such that the mean of sigmoid(utility + c) is the rate; bisection."""
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.mean(sigmoid(utility + middle)) < rate else (low, middle)
    return (low + high) / 2


def sigmoid(logit: Array) -> Array:
    return 1 / (1 + np.exp(-logit))
