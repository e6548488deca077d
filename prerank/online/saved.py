"""A trainer's checkpoint: all that it has learned, and the position in the log that belongs to it, in one folder that appears whole.

    saved.save(told, position);  saved.load(told) -> Position, or None when there is none
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prerank.data.growing import GrowingVocabulary
from prerank.metrics.running import PageHinkley, Running
from prerank.online.catalogue import Catalogue
from prerank.online.moments import Moments
from prerank.online.roles import caches
from prerank.online.told import Told
from prerank.store import MemoryStore
from prerank.stream import Position, Source
from prerank.training import checkpoint
from prerank.training.learner import Pair

COUNTED = ("rows", "batches", "skipped", "corrections", "late", "alarms")  # of Told


class Saved:
    """See the module's first lines; folder: of the checkpoint. The others are what is saved, and filled when it is loaded."""

    def __init__(self, folder: Path, pair: Pair, catalogue: Catalogue, moments: Moments, running: Running, drift: PageHinkley) -> None:
        self.folder, self.pair, self.catalogue, self.moments, self.running, self.drift = folder, pair, catalogue, moments, running, drift
        self._stores = [c.store for c in caches(pair) if isinstance(c.store, MemoryStore)]

    def save(self, told: Told, position: Position) -> None:
        """Raises OSError (a full disk); the checkpoint before is then in force."""
        tensors = self.pair.tensors()
        tensors |= {f"running/{k}": torch.from_numpy(np.asarray(v)) for k, v in self.running.arrays().items()}
        tensors |= {f"vocabulary/{k}": v for k, v in self._vocabularies().items()}
        for i, store in enumerate(self._stores):
            tensors |= {f"history/{i}/{k}": v for k, v in store.history_tensors().items()}
        tensors["rng"] = torch.get_rng_state()
        state = {"position": [position.offset, *position.source], "drift": self.drift.state(), "known": self.moments.known,
                 "met": {"user": self.catalogue.of_users.met, "item": self.catalogue.of_items.met},
                 **{name: getattr(told, name) for name in COUNTED}}  # fmt: skip
        checkpoint.save(self.folder, tensors, state)

    def load(self, told: Told) -> Position | None:
        """Raises ConfigError for a checkpoint that is damaged."""
        found = checkpoint.load(self.folder)
        if found is None:
            return None
        state = found.state
        self.pair.load(found.part)
        for i, store in enumerate(self._stores):
            store.load_history(found.part(f"history/{i}"))
        self.running.load({k: v.numpy() for k, v in found.part("running").items()})
        for name, data in found.part("vocabulary").items():
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"v{GrowingVocabulary.suffix}"
                data.numpy().tofile(path)
                self.catalogue.growing[name].__dict__ |= GrowingVocabulary.load(path).__dict__
        torch.set_rng_state(found.tensors["rng"])
        self.drift.load(state["drift"])
        for name in COUNTED:
            setattr(told, name, state[name])
        self.moments.known = state["known"]
        self.catalogue.of_users.load(state["met"]["user"])
        self.catalogue.of_items.load(state["met"]["item"])
        offset, *source = state["position"]
        return Position(offset, Source(*source))

    def _vocabularies(self) -> dict[str, Tensor]:
        """Growing vocabularies as the bytes of their files, so that they lie in the same folder as the weights."""
        found = {}
        with tempfile.TemporaryDirectory() as folder:
            for name, vocabulary in self.catalogue.growing.items():
                path = Path(folder) / f"v{GrowingVocabulary.suffix}"
                vocabulary.save(path)
                found[name] = torch.from_numpy(np.fromfile(path, np.uint8))
        return found
