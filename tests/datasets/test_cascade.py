"""The cascade: who is recalled, who gets how far, and in which order."""

from __future__ import annotations

import numpy as np
import pytest

from prerank.batch import Stage
from prerank.datasets import cascade, world


@pytest.fixture(scope="module")
def planted() -> world.World:
    return world.plant(200, 300, np.random.default_rng(0))


def test_requests_are_in_order_of_time_and_inside_the_period(planted: world.World) -> None:
    asked = cascade.requests(planted, 5000, 3, np.random.default_rng(0))
    assert (np.diff(asked.time_ms) >= 0).all()
    assert asked.time_ms[0] >= cascade.START_MS
    assert asked.time_ms[-1] < cascade.START_MS + 3 * cascade.DAY_MS
    seen = np.bincount(asked.user, minlength=200) / 5000
    assert np.corrcoef(seen, planted.activity)[0, 1] > 0.9


def test_recall_is_half_popularity_half_taste(planted: world.World) -> None:
    """Frequencies of recalled items against the mixture written out, for one group of users."""
    user = np.flatnonzero(planted.user_group == planted.user_group[0])[:1].repeat(20_000)
    item = cascade.recall(planted, user, 20, np.random.default_rng(0))
    assert item.shape == (20_000, 20)
    share = np.array([planted.popularity[planted.item_group == g].sum() for g in range(world.ITEM_GROUPS)])
    reachable = share > 0
    liked = planted.group_affinity[planted.user_group[0]]
    taste = np.where(
        reachable[planted.item_group], liked[planted.item_group] * planted.popularity / np.maximum(share, 1e-12)[planted.item_group], 0
    )
    expected = (planted.popularity + taste / liked[reachable].sum()) / 2
    found = np.bincount(item.ravel(), minlength=300) / item.size
    assert np.abs(found - expected).max() < 0.004 + 0.5 * liked[~reachable].sum()


def test_repetitions_by_hand() -> None:
    rows = np.random.default_rng(0).integers(0, 6, (50, 9))
    expected = [[x in row[:i] for i, x in enumerate(row)] for row in rows.tolist()]
    assert cascade.repeated(rows).tolist() == expected


def test_stages_have_their_sizes_and_shown_ones_come_first() -> None:
    rng = np.random.default_rng(0)
    utility, log_bid = rng.standard_normal((40, 80)), rng.standard_normal((40, 80))
    never = np.zeros((40, 80), bool)
    order, stage = cascade.select(utility, log_bid, never, 10, rng)
    counts = [np.bincount(row, minlength=4).tolist() for row in stage]
    assert counts == [[10, 10, 20, 40]] * 40  # shown, ranked, pre-ranked, recalled
    assert (np.diff(stage, axis=1) >= 0).all()
    assert (np.sort(order, axis=1) == np.arange(80)).all()
    means = [np.take_along_axis(utility, order, 1)[stage == s].mean() for s in range(4)]
    assert means == sorted(means, reverse=True)


def test_repetitions_never_pass(planted: world.World) -> None:
    """When half of the candidates are repetitions, fewer come through, and none twice."""
    rng = np.random.default_rng(0)
    never = np.arange(80) % 2 == 1
    _, stage = cascade.select(rng.standard_normal((5, 80)), np.zeros((5, 80)), np.broadcast_to(never, (5, 80)), 15, rng)
    assert [(row == Stage.IMPRESSION).sum() for row in stage] == [15] * 5
    assert [(row >= 0).sum() for row in stage] == [40] * 5


def test_blocks_do_not_repeat_an_item_within_a_request(planted: world.World) -> None:
    rng = np.random.default_rng(0)
    asked = cascade.requests(planted, 300, 2, rng)
    blocks = list(cascade.run(planted, asked, 4, 2, 0.1, rng))
    pairs = [(r, i) for b in blocks for r, i in zip(b["request"].tolist(), b["item"].tolist(), strict=True)]
    assert len(set(pairs)) == len(pairs)


def test_the_intercept_gives_the_rate() -> None:
    utility = np.random.default_rng(0).standard_normal(1000) * 3
    c = cascade.intercept(utility, 0.2)
    assert np.mean(1 / (1 + np.exp(-(utility + c)))) == pytest.approx(0.2, abs=1e-9)
