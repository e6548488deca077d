"""The planted world: what is drawn, how tastes turn, and what the features give away."""

from __future__ import annotations

import numpy as np
import pytest

from prerank.datasets import world


@pytest.fixture(scope="module")
def planted() -> world.World:
    return world.plant(3000, 800, np.random.default_rng(0))


def test_turning_keeps_lengths_and_angles() -> None:
    vectors = np.random.default_rng(0).standard_normal((6, world.WIDTH)).astype(np.float32)
    turned = world.turned(vectors, 0.7)
    assert np.allclose(turned @ turned.T, vectors @ vectors.T, atol=1e-5)
    assert np.allclose(world.turned(turned, -0.7), vectors, atol=1e-6)
    assert np.allclose((vectors[:, :2] * turned[:, :2]).sum(1), (vectors[:, :2] ** 2).sum(1) * np.cos(0.7), atol=1e-5)


def test_each_row_has_its_own_angle() -> None:
    vectors = np.random.default_rng(0).standard_normal((3, world.WIDTH)).astype(np.float32)
    angles = np.array([0.0, 0.5, 1.0])
    expected = np.concatenate([world.turned(vectors[i : i + 1], float(a)) for i, a in enumerate(angles)])
    assert np.allclose(world.turned(vectors, angles), expected)


def test_drift_in_quarter_turns() -> None:
    assert world.angle_at(1.0, 1.0) == pytest.approx(np.pi / 2)
    assert world.angle_at(0.5, 0.2) == pytest.approx(np.pi / 20)


def test_members_of_a_group_are_alike(planted: world.World) -> None:
    unit = planted.user_vector / np.linalg.norm(planted.user_vector, axis=1, keepdims=True)
    same = planted.user_group[:500, None] == planted.user_group[None, :500]
    alike = unit[:500] @ unit[:500].T
    assert alike[same].mean() > alike[~same].mean() + 0.5


def test_probabilities(planted: world.World) -> None:
    for p in (planted.activity, planted.popularity, planted.group_affinity):
        assert np.allclose(p.sum(-1), 1)
        assert (p > 0).all()
    assert np.sort(planted.popularity)[::-1][:80].sum() > 0.3  # a tenth of the items, much of the traffic


def test_features_tell_the_group_most_of_the_time(planted: world.World) -> None:
    rng = np.random.default_rng(1)
    segment = world.user_features(planted, rng)["segment"]
    assert (segment == np.char.add("s", planted.user_group.astype(str))).mean() == pytest.approx(0.95 + 0.05 / world.USER_GROUPS, abs=0.02)
    category = world.item_features(planted, rng)["category"]
    assert (category == np.char.add("c", planted.item_group.astype(str))).mean() == pytest.approx(0.95 + 0.05 / world.ITEM_GROUPS, abs=0.03)


def test_tags_point_where_the_item_points(planted: world.World) -> None:
    tags = world.item_features(planted, np.random.default_rng(1))["tags"]
    shown = [[int(t[1:]) for t in row.split("|")] for row in tags]
    assert {len(set(row)) for row in shown} == {world.NAMED}
    pull = planted.item_vector @ planted.tags.T
    assert np.mean([pull[i, row].mean() for i, row in enumerate(shown)]) > pull.mean() + 0.4


def test_quality_shows_the_bias(planted: world.World) -> None:
    assert np.corrcoef(world.item_features(planted, np.random.default_rng(1))["quality"], planted.item_bias)[0, 1] > 0.7
