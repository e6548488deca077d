"""A planted world: users and items with known tastes, drawn once from a seed.

Every vector lives in R^K (K = WIDTH). A user's taste is its group's centre plus a little of its own, an item's its group's, its
creator's and its own; what the logs show of them (segment, age, category, creator, tags, quality) is noisy on purpose.

    click utility       a <R(t) p_u, q_i> + b_u + b_i + b_scene + b_hour + c        true logit of a click
    conversion utility  a/2 <R(t) p_u, q_i> + d_i + c'                               true logit of a conversion, given the click

R(t) turns all users' tastes slowly, by `drift` times 90 degrees over the whole period: static models age. At any one moment the utility
is a dot product plus biases, so the two-tower form can express it exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray

WIDTH = 4  # K, even: tastes turn in K/2 planes
USER_GROUPS, ITEM_GROUPS, ITEMS_A_CREATOR = 8, 12, 10
TAGS, NAMED = 40, 5  # directions of taste with a name; how many of them a user or item shows
SCENES, HOURS, AGES = 4, 24, 7
SCALE = 4.0  # a


@dataclass(frozen=True)
class World:
    """Who is there. U users, I items; ids are row + 1."""

    user_vector: Array  # [U, K] at time 0
    user_bias: Array  # [U]
    user_group: Array  # [U]
    activity: Array  # [U] probability of asking next
    item_vector: Array  # [I, K]
    item_bias: Array  # [I]
    conversion_bias: Array  # [I]
    item_group: Array  # [I]
    creator: Array  # [I]
    popularity: Array  # [I] probability of being recalled blindly
    bid: Array  # [I]
    group_affinity: Array  # [user groups, item groups] probability that a taste recall looks into that item group
    scene_bias: Array  # [SCENES]
    hour_bias: Array  # [HOURS]
    tags: Array  # [TAGS, K] directions of taste that have a name


def plant(users: int, items: int, rng: np.random.Generator) -> World:
    """Draw a world."""
    user_centres, item_centres = _directions(USER_GROUPS, rng), _directions(ITEM_GROUPS, rng)
    user_group = rng.integers(0, USER_GROUPS, users)
    creators = max(1, items // ITEMS_A_CREATOR)
    creator_group = rng.integers(0, ITEM_GROUPS, creators)
    creator = rng.integers(0, creators, items)
    item_group = creator_group[creator]
    activity, popularity = _power_law(users, 0.6, rng), _power_law(items, 0.8, rng)
    affinity = np.exp(3.0 * user_centres @ item_centres.T)
    hours = np.arange(HOURS)
    return World(
        user_vector=_mixed((0.99, user_centres[user_group]), (0.01, _directions(users, rng))),
        user_bias=(0.3 * _standard(np.log(activity)) + 0.1 * rng.standard_normal(users)).astype(np.float32),
        user_group=user_group,
        activity=activity,
        item_vector=_mixed((0.96, item_centres[item_group]), (0.03, _directions(creators, rng)[creator]), (0.01, _directions(items, rng))),
        item_bias=(0.3 * _standard(np.log(popularity)) + 0.2 * rng.standard_normal(items)).astype(np.float32),
        conversion_bias=(0.5 * rng.standard_normal(items)).astype(np.float32),
        item_group=item_group,
        creator=creator,
        popularity=popularity,
        bid=np.exp(0.5 * rng.standard_normal(items)).astype(np.float32),
        group_affinity=affinity / affinity.sum(1, keepdims=True),
        scene_bias=(0.4 * rng.standard_normal(SCENES)).astype(np.float32),
        hour_bias=(0.2 * np.sin(2 * np.pi * (hours - 9) / HOURS)).astype(np.float32),
        tags=_directions(TAGS, rng),
    )


def turned(vectors: Array, angle: Array | float) -> Array:
    """R: each of the K/2 planes of [n, K] vectors turned by its row's angle (radians)."""
    cos, sin = (np.reshape(f(angle), (-1, 1)).astype(np.float32) for f in (np.cos, np.sin))
    even, odd = vectors[:, 0::2], vectors[:, 1::2]
    return np.stack([even * cos - odd * sin, even * sin + odd * cos], axis=2).reshape(vectors.shape)


def angle_at(fraction: Array | float, drift: float) -> Array:
    """How far tastes have turned at a fraction of the period, in radians."""
    return np.asarray(fraction, dtype=np.float64) * drift * (np.pi / 2)


def user_features(world: World, rng: np.random.Generator) -> dict[str, Array]:
    """What a log shows of users: segment (95 % true group), age (half follows the group), device (means nothing),
    interests (multi, by taste at time 0), activity (numeric)."""
    users = len(world.user_group)
    segment = _noisy(world.user_group, USER_GROUPS, 0.95, rng)
    return {
        "user_id": np.arange(1, users + 1, dtype=np.int32),
        "segment": np.char.add("s", segment.astype(str)),
        "age": _noisy(world.user_group % AGES, AGES, 0.5, rng).astype(np.int16),
        "device": np.array(["ios", "android", "web"])[rng.integers(0, 3, users)],
        "interests": _named(world.user_vector, world.tags, "i", rng),
        "activity": np.log(world.activity * users).astype(np.float32),
    }


def item_features(world: World, rng: np.random.Generator) -> dict[str, Array]:
    """What a log shows of items: category (95 % true group), creator, tags (multi, by taste), quality (the item's bias, blurred), bid."""
    items = len(world.item_group)
    return {
        "item_id": np.arange(1, items + 1, dtype=np.int32),
        "category": np.char.add("c", _noisy(world.item_group, ITEM_GROUPS, 0.95, rng).astype(str)),
        "creator": (world.creator + 1).astype(np.int32),
        "tags": _named(world.item_vector, world.tags, "t", rng),
        "quality": (world.item_bias + 0.2 * rng.standard_normal(items)).astype(np.float32),
        "bid": world.bid,
    }


def _directions(count: int, rng: np.random.Generator) -> Array:
    vectors = rng.standard_normal((count, WIDTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _mixed(*parts: tuple[float, Array]) -> Array:
    """Sum of unit vectors whose squared lengths are the shares given."""
    return np.sum([np.sqrt(share) * part for share, part in parts], axis=0).astype(np.float32)


def _power_law(count: int, exponent: float, rng: np.random.Generator) -> Array:
    weights = rng.permutation(np.arange(1, count + 1, dtype=np.float64)) ** -exponent
    return weights / weights.sum()


def _noisy(values: Array, count: int, truth: float, rng: np.random.Generator) -> Array:
    """Each value kept with probability `truth`, else drawn blindly."""
    return np.where(rng.random(len(values)) < truth, values, rng.integers(0, count, len(values)))


def _named(vectors: Array, tags: Array, letter: str, rng: np.random.Generator) -> Array:
    """The NAMED tags that point most like each vector, blurred, as `t3|t17|...`."""
    pull = vectors @ tags.T + 0.1 * rng.standard_normal((len(vectors), len(tags)))
    top = np.argsort(-pull, axis=1)[:, :NAMED]
    names = np.char.add(letter, np.arange(len(tags)).astype(str))[top]
    return np.array(["|".join(row) for row in names.tolist()])


def _standard(values: Array) -> Array:
    return (values - values.mean()) / (values.std() or 1.0)
