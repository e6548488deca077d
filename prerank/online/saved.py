"""A trainer's checkpoint: all that it has learned, and the positions in the log that belong to it, in one folder that appears whole.

    saved.save(told, positions);  saved.load(told) -> positions by partition, or None where there is none

Processes that learn together have learned the same: the first one writes it, with the positions of all, so that others may read the
partitions next time, more processes or fewer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prerank.config import ConfigError
from prerank.data.growing import GrowingVocabulary
from prerank.metrics.running import PageHinkley, Running
from prerank.online.catalogue import Catalogue
from prerank.online.moments import Moments
from prerank.online.roles import caches
from prerank.online.start import filled
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
        self._positions: dict[int, Position] = {}  # of partitions that somebody read once

    def save(self, told: Told, positions: Mapping[int, Position]) -> None:
        """positions: of our partitions. Raises OSError (a full disk); the checkpoint before is then in force. Raises GroupError when not
        all have the same weights."""
        group, tensors = self.pair.group, self.pair.tensors()
        group.check_same(tensors)
        random: dict[str, Tensor] = {}
        for rank, (theirs, state) in enumerate(group.share((dict(positions), torch.get_rng_state()))):
            self._positions |= theirs
            random[f"rng/{rank}"] = state
        if not group.rank:
            self._write(told, tensors | random)
        group.wait()

    def load(self, told: Told) -> dict[int, Position] | None:
        """Raises ConfigError for a checkpoint that is damaged, or whose memories outside have lost what it knows of; StoreError."""
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
        random = found.part("rng").get(str(self.pair.group.rank))
        if random is not None:  # there were as many processes
            torch.set_rng_state(random)
        self.drift.load(state["drift"])
        for name in COUNTED:
            setattr(told, name, state[name])
        self.moments.known = state["known"]
        self.catalogue.of_users.load(state["met"]["user"])
        self.catalogue.of_items.load(state["met"]["item"])
        self._positions = {int(p): Position(offset, Source(*source)) for p, (offset, *source) in state["positions"].items()}
        for name, upto in self._blended().items():
            if upto < state.get("blended", {}).get(name, -1):
                place = name.rpartition(", by ")[0]
                raise ConfigError(f"synergy.store, '{place}': lost what this run blended into it; put it back, or begin with --overwrite")
        return self._positions

    def _write(self, told: Told, tensors: dict[str, Tensor]) -> None:
        tensors |= {f"running/{k}": torch.from_numpy(np.asarray(v)) for k, v in self.running.arrays().items()}
        tensors |= {f"vocabulary/{k}": v for k, v in self._vocabularies().items()}
        for i, store in enumerate(self._stores):
            tensors |= {f"history/{i}/{k}": v for k, v in store.history_tensors().items()}
        state = {"positions": {p: [offset, *source] for p, (offset, source) in sorted(self._positions.items())},
                 "drift": self.drift.state(), "blended": self._blended(), "known": self.moments.known,
                 "met": {"user": self.catalogue.of_users.met, "item": self.catalogue.of_items.met},
                 **{name: getattr(told, name) for name in COUNTED}}  # fmt: skip
        checkpoint.save(self.folder, tensors, state)

    def _blended(self) -> dict[str, int]:
        """How far each store outside that we fill has got, by its name and ours. Raises StoreError."""
        writers = [self.moments.writer(p) for p in self._positions]
        return {f"{store.name}, by {writer}": store.done(writer).upto for store in filled(self.pair) for writer in writers}

    def _vocabularies(self) -> dict[str, Tensor]:
        """Growing vocabularies as the bytes of their files, so that they lie in the same folder as the weights."""
        found = {}
        with tempfile.TemporaryDirectory() as folder:
            for name, vocabulary in self.catalogue.growing.items():
                path = Path(folder) / f"v{GrowingVocabulary.suffix}"
                vocabulary.save(path)
                found[name] = torch.from_numpy(np.fromfile(path, np.uint8))
        return found
