"""The simulated world, alive: users ask, see what the server shows them, and click by a hidden truth that moves.

    world = LivingWorld(folder_of_the_prepared_log, drift=1.0, seconds=300)
    asked = world.ask(20)                              who, and which candidates
    truth = world.truth(asked, at)                     true click probabilities [n, C] so many seconds after the beginning

It is the world that drew the log (same options and seed), so that what was learned from the log holds when it begins; from then on tastes
turn by `drift` quarter turns over the whole time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prerank.config import ConfigError
from prerank.datasets import cascade, world
from prerank.datasets.recipe import notes
from prerank.metrics import sigmoid


@dataclass(frozen=True)
class Asked:
    """n requests.

    user, scene, hour   [n]; users are rows, ids are row + 1
    items               [n, C] rows of candidates, each once; ids are row + 1
    """

    user: NDArray[np.int64]
    scene: NDArray[np.int64]
    hour: NDArray[np.int64]
    items: NDArray[np.int64]

    def one(self, i: int) -> Asked:
        """The i-th alone."""
        return Asked(self.user[i : i + 1], self.scene[i : i + 1], self.hour[i : i + 1], self.items[i : i + 1])


class LivingWorld:
    """See the module's first lines.

    folder       of the simulated data set that the models were trained on
    candidates   of a request
    """

    def __init__(self, folder: Path, drift: float, seconds: float, candidates: int = 100, seed: int = 1) -> None:
        """Raises ConfigError for a world of fewer items than candidates."""
        said = notes(folder)
        options = said["options"]
        if candidates > options["items"]:
            raise ConfigError(f"candidates: must be at most the items of the world, {options['items']}; got {candidates}")
        self.planted = world.plant(options["users"], options["items"], np.random.default_rng(options["seed"]))
        self.intercept = said["click_intercept"]
        self.before = float(world.angle_at(1.0, options["drift"]))  # how far tastes had turned at the end of the log
        self.drift, self.seconds, self.candidates = drift, seconds, candidates
        self.random = np.random.default_rng(seed)

    def ask(self, count: int) -> Asked:
        """Requests of users who are as active as they are; half of the candidates are popular, half to the taste of the user's group."""
        user = np.searchsorted(np.cumsum(self.planted.activity)[:-1], self.random.random(count))
        items = np.stack([self._candidates(u) for u in user])
        scene, hour = self.random.integers(0, world.SCENES, count), self.random.integers(0, world.HOURS, count)
        return Asked(user, scene, hour, items)

    def truth(self, asked: Asked, at: float) -> NDArray[np.float64]:
        """True click probabilities [n, C], `at` seconds after the beginning."""
        p = self.planted
        angle = self.before + float(world.angle_at(at / self.seconds, self.drift))
        taste = world.SCALE * np.einsum("nk,nck->nc", world.turned(p.user_vector[asked.user], angle), p.item_vector[asked.items])
        asker = p.user_bias[asked.user] + p.scene_bias[asked.scene] + p.hour_bias[asked.hour] + self.intercept
        return sigmoid(taste + p.item_bias[asked.items] + asker[:, None])

    def clicks(self, probabilities: NDArray[np.float64]) -> NDArray[np.bool_]:
        return self.random.random(probabilities.shape) < probabilities

    def _candidates(self, user: int) -> NDArray[np.int64]:
        """Distinct items, those that are recalled twice making room for others."""
        found: NDArray[np.int64] = np.empty(0, np.int64)
        while len(found) < self.candidates:
            more = cascade.recall(self.planted, np.array([user]), 2 * self.candidates, self.random)[0]
            found = np.concatenate([found, more])
            _, first = np.unique(found, return_index=True)
            found = found[np.sort(first)]
        return found[: self.candidates]
