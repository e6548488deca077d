"""What a trainer knows, as generations that servers follow.

    publisher.learned(rows);  publisher.publish()  -> number of the generation, or None when nothing was learned since the last one
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from torch import nn

from prerank.config import Config, Publish
from prerank.online.catalogue import Catalogue
from prerank.serving.export import export
from prerank.stream import Row


class Publisher:
    """See the module's first lines. `delay`: seconds from the oldest unpublished row's last event to the generation that knows it."""

    def __init__(self, settings: Publish, config: Config, catalogue: Catalogue, model: nn.Module) -> None:
        self.settings, self.config, self.catalogue, self.model = settings, config, catalogue, model
        self.delay = math.nan
        self._oldest: int | None = None

    def learned(self, rows: Sequence[Row]) -> None:
        """These are in the weights now."""
        first = min(r.appended for r in rows)
        self._oldest = first if self._oldest is None else min(self._oldest, first)

    def publish(self) -> int | None:
        """Raises GenerationError, OSError (a full disk); then nothing is left of the new generation."""
        if self._oldest is None:
            return None
        synergy = self.config.synergy
        options: dict[str, Any] = self.config.model.model_dump(mode="json")
        folder = export(self.catalogue, self.model, folder=self.settings.folder, options=options, name=self.config.name,
                        dtype=self.settings.dtype, synergy=None if synergy is None else synergy.model_dump(mode="json"),
                        keep=self.settings.keep)  # fmt: skip
        self.delay, self._oldest = max(0.0, time.time() - self._oldest / 1000), None
        return int(folder.name.rpartition("-")[2])
