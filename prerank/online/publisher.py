"""What a trainer knows, as generations and deltas that servers follow.

    publisher.learned(users, items, since)
    publisher.publish()                      -> number of the generation, or None when nothing was learned since the last time

A whole generation encodes every item; the deltas after it hold what changed: weights (of tables the rows that differ), ids that came or
went, and the vectors of the items that were learned from, or whose id has another row, and of the next `refresh` others in turn: an
item's vector of long ago beside a user tower of today says little, and is shown for having been overrated once. A server that lost a
delta asks for a whole generation, and gets it the next time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prerank.config import Config, Publish
from prerank.data.growing import Changes as Growth
from prerank.online.catalogue import Catalogue
from prerank.online.catalogue import Entities as CatalogueSide
from prerank.online.elsewhere import Elsewhere
from prerank.serving.change import Changes, Entities, Grown
from prerank.serving.delta import write_delta
from prerank.serving.export import export
from prerank.serving.follow import wanted
from prerank.serving.generation import CURRENT


class Publisher:
    """See the module's first lines.

    delay      seconds from the oldest unpublished row's last event until it was published; NaN: a server asked, nothing was learned
    sequence   of the last delta; 0: a whole generation was the last
    """

    def __init__(self, settings: Publish, config: Config, catalogue: Catalogue, model: nn.Module, space: str | None = None,
                 say: Callable[[str], None] = lambda line: None) -> None:  # fmt: skip
        """Raises GenerationError for another place (`to`) that cannot be used."""
        self.settings, self.config, self.catalogue, self.model, self.space = settings, config, catalogue, model, space
        self.delay, self.sequence, self.number = math.nan, 0, 0
        self._elsewhere = None if settings.to is None else Elsewhere(Path(settings.folder), settings.to, say)
        self._oldest: int | None = None
        self._before: dict[str, Tensor] = {}  # weights as they were published last
        self._turn = 0  # the row of the item that is encoded again next
        self._users: set[Any] = set()
        self._items: set[Any] = set()
        self._rows: dict[str, set[int]] = {}
        self._placed: dict[str, NDArray[Any]] = {}  # rows of growing ids as they were published last

    def grew(self, grown: Mapping[str, Growth]) -> None:
        """Rows of vocabularies that have another id, or none any more."""
        for name, changes in grown.items():
            self._rows.setdefault(name, set()).update(changes.admitted.tolist(), changes.released.tolist())

    def learned(self, users: Iterable[Any], items: Iterable[Any], since: int) -> None:
        """Rows of these ids are in the weights now; since: ms, when the first of their rows was ready."""
        self._oldest = since if self._oldest is None else min(self._oldest, since)
        self._users.update(users)
        self._items.update(items)

    def publish(self) -> int | None:
        """Raises GenerationError, OSError (a full disk); then nothing is left of what was to be published."""
        asked = self.number and (wanted(self.settings.folder) is not None or (self._elsewhere is not None and self._elsewhere.asked))
        if self._oldest is None and not asked and not self._nothing_there():
            return None
        if not self.number or asked or self.sequence >= self.settings.deltas or not hasattr(self.model, "encode"):
            self._whole()
        else:
            write_delta(self.settings.folder, self._changes(), base=self.number)
            self.sequence += 1
        self._before = {name: weight.detach().cpu().clone() for name, weight in self.model.state_dict().items()}
        self._placed = {n: self._column(n) for n in self._growing_ids()}
        self.delay = math.nan if self._oldest is None else max(0.0, time.time() - self._oldest / 1000)
        self._oldest = None
        for touched in (self._users, self._items, self._rows):
            touched.clear()
        if self._elsewhere is not None:
            self._elsewhere.copy()
        return self.number

    def close(self) -> None:
        """What was published last is in the other place, too, unless that is away."""
        if self._elsewhere is not None:
            self._elsewhere.close()

    def _nothing_there(self) -> bool:
        """A server has nothing to begin with, while the first weights are there."""
        begun = self.config.online is not None and self.config.online.start is not None
        return begun and not self.number and not (Path(self.settings.folder) / CURRENT).exists()

    def _whole(self) -> None:
        synergy = self.config.synergy
        options: dict[str, Any] = self.config.model.model_dump(mode="json")
        folder = export(self.catalogue, self.model, folder=self.settings.folder, options=options, name=self.config.name,
                        dtype=self.settings.dtype, synergy=None if synergy is None else synergy.model_dump(mode="json"),
                        keep=self.settings.keep, space=self.space)  # fmt: skip
        self.number, self.sequence = int(folder.name.rpartition("-")[2]), 0
        if self._elsewhere is not None:
            self._elsewhere.asked = False

    def _changes(self) -> Changes:
        tables = _tables(self.model)
        dense: dict[str, Tensor] = {}
        rows: dict[str, tuple[Tensor, Tensor]] = {}
        for name, weight in self.model.state_dict().items():
            now, before = weight.detach().cpu(), self._before[name]
            if name not in tables:
                dense |= {} if torch.equal(now, before) else {name: now}
            elif len(at := (now != before).flatten(1).any(1).nonzero().flatten()):
                rows[name] = at, now[at]
        return Changes(dense=dense, rows=rows, vocabularies=self._vocabularies(), items=self._encoded(), users=self._known())

    def _vocabularies(self) -> dict[str, Grown]:
        found = {}
        for name, changed in self._rows.items():
            at = np.array(sorted(changed), np.int32)
            values = self.catalogue.growing[name].at(at)
            there = values.is_not_null().to_numpy()
            found[name] = Grown(values.drop_nulls(), at[there], at[~there])
        return found

    def _encoded(self) -> Entities | None:
        """The items that were learned from, as the model encodes them now."""
        of, schema = self.catalogue.of_items, self.catalogue.schema
        ids = of.held(self._items | self._moved(schema.item_id) | self._aged())
        if not ids:
            return None
        at = of.places(ids)
        columns = {f.name: torch.from_numpy(np.array(of.column(f.name, at))) for f in schema.on("item")}
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            self.model.eval()
            stored = self.model.encode("item", {n: c.to(device) for n, c in columns.items()})  # type: ignore[operator]
        bias = np.zeros((len(ids), len(schema.objectives)), np.float32) if stored.bias is None else stored.bias.float().cpu().numpy()
        return Entities(_ids(ids), flat=stored.flat().float().cpu().numpy(), bias=bias)

    def _aged(self) -> set[Any]:
        """The next items in turn: what was encoded long ago says little to a user tower of today."""
        of = self.catalogue.of_items
        turn = (self._turn + np.arange(min(self.settings.refresh, len(of)))) % len(of)
        self._turn = (self._turn + len(turn)) % len(of)
        return set(of.ids.gather(turn).to_list())

    def _known(self) -> Entities | None:
        """The users that were learned from, the new ones among them, and those whose id has another row."""
        of = self.catalogue.of_users
        ids = of.held(self._users | self._moved(self.catalogue.schema.user_id))
        if not ids:
            return None
        at = of.places(ids)
        features = [f.name for f in self.catalogue.schema.on("user") if f.side == "user"]
        return Entities(_ids(ids), {name: np.array(of.column(name, at)) for name in features})

    def _growing_ids(self) -> list[str]:
        return [n for n in (self.catalogue.schema.user_id, self.catalogue.schema.item_id) if n in self.catalogue.growing]

    def _of(self, feature: str) -> CatalogueSide:
        return self.catalogue.of_users if feature == self.catalogue.schema.user_id else self.catalogue.of_items

    def _column(self, feature: str) -> NDArray[Any]:
        """The id column of all that are known."""
        of = self._of(feature)
        return np.array(of.column(feature, np.arange(len(of))))

    def _moved(self, feature: str) -> set[Any]:
        """Ids that were published with another row than they have now: they came, went, or came again."""
        if feature not in self._placed:
            return set()
        before = self._placed[feature]
        changed = np.flatnonzero(self._column(feature)[: len(before)] != before)
        return set(self._of(feature).ids.gather(changed).to_list())


def _tables(model: nn.Module) -> set[str]:
    """Names of the weights that are held by row."""
    found: set[str] = set()
    for prefix, module in model.named_modules():
        held = module.held_rows() if hasattr(module, "held_rows") else {}
        found |= {f"{prefix}.{name}" if prefix else name for name in held}
    return found


def _ids(ids: list[Any]) -> Any:
    return np.array(ids, np.int64) if type(ids[0]) is int else ids
