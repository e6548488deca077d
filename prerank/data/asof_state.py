"""Running statistics one moment after the other: what serving keeps, the same numbers as `asof` makes of a whole log.

    state = RunningState(data.asof, delay=milliseconds("30m"), edges=dataset.edges)
    values = state.read({"user_id": [7, 7], "tab": [0, 1]}, now)      # {statistic: [2]}, raw values for the encoders
    state.observe({"user_id": [7], "tab": [0]}, [now], {"is_click": [1]})

What is observed waits until a later moment asks: events of the moment itself are not seen, and labels not before their delay is over.
Time must not run backwards. Sums are kept as of the key's last event and decayed when they are read: a key costs 24 bytes and its place
in a dict, and nothing is touched while time goes by.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from prerank.config import AsOf, milliseconds
from prerank.data.asof import Seen, log_odds
from prerank.data.asof_log import cut, key_hash
from prerank.data.derive import Floats, Ints
from prerank.data.errors import DataError
from prerank.data.values import as_type, value_type

Columns = Mapping[str, Sequence[object] | pl.Series]
Edges = Mapping[str, Mapping[str, Sequence[float]]]


class RunningState:
    """Sums of every statistic's keys; see the module's first lines.

    settings   as in `data.asof`
    delay      ms after which a label is known
    edges      {statistic: {key column: inner edges of its bins}}, of the prepared data
    """

    def __init__(self, settings: Sequence[AsOf], delay: int = 0, edges: Edges | None = None) -> None:
        self.settings, self.delay, self.edges = tuple(settings), delay, dict(edges or {})
        self.sums = {s.name: _Sums(s) for s in self.settings}
        self.now = np.iinfo(np.int64).min
        self._waiting: dict[str, deque[tuple[int, int, float]]] = {s.name: deque() for s in self.settings}

    def observe(self, columns: Columns, ts: ArrayLike, labels: Mapping[str, ArrayLike]) -> None:
        """Impressions [n] with their times in ms, ascending, and all labels. Raises DataError when time runs backwards."""
        when = np.asarray(ts, np.int64)
        if len(when) and (when[0] < self.now or (np.diff(when) < 0).any()):
            raise DataError(f"running statistics: time must not run backwards; {int(when.min())} came after {max(self.now, int(when[0]))}")
        for s in self.settings:
            hashes, there = self._keys(s, columns)
            y = np.asarray(labels[s.label], np.float64) if s.label else np.zeros(len(when))
            rows = zip(when.tolist(), hashes.tolist(), there.tolist(), y.tolist(), strict=True)
            self._waiting[s.name].extend((t, key if known else _NO_KEY, label) for t, key, known, label in rows)
        self.now = int(when[-1]) if len(when) else self.now

    def read(self, columns: Columns, now: int) -> dict[str, Floats]:
        """Every statistic of keys [n] at a moment in ms, from what came strictly before. Raises DataError for a moment gone by."""
        if now < self.now:
            raise DataError(f"running statistics: time must not run backwards; {now} came after {self.now}")
        self.now = now
        found = {}
        for s in self.settings:
            until, waiting, sums = now - (self.delay if s.label else 0), self._waiting[s.name], self.sums[s.name]
            while waiting and waiting[0][0] < until:
                sums.add(*waiting.popleft())
            hashes, there = self._keys(s, columns)
            found[s.name] = sums.read(hashes, there, now)
        return found

    def save(self, path: str | Path) -> None:
        """Into one `.npz`; `load` of a state with the same settings continues from there."""
        arrays: dict[str, NDArray[np.generic]] = {"now": np.array(self.now), "settings": np.array(self._told())}
        for n, s in enumerate(self.settings):
            arrays |= {f"{n}/{name}": array for name, array in self.sums[s.name].arrays().items()}
            arrays[f"{n}/waiting"] = np.array([(t, key) for t, key, _ in self._waiting[s.name]], np.int64).reshape(-1, 2)
            arrays[f"{n}/labels"] = np.array([y for _, _, y in self._waiting[s.name]], np.float64)
        np.savez(path, **arrays)  # type: ignore[arg-type]

    def load(self, path: str | Path) -> None:
        """The inverse of `save`. Raises DataError when it was saved with other settings."""
        with np.load(path) as arrays:
            if str(arrays["settings"]) != self._told():
                raise DataError(f"running statistics '{path}': were saved with other settings")
            self.now = int(arrays["now"])
            for n, s in enumerate(self.settings):
                self.sums[s.name].load({name: arrays[f"{n}/{name}"] for name in ("keys", "total", "weight", "last", "everyone")})
                pairs, labels = arrays[f"{n}/waiting"].tolist(), arrays[f"{n}/labels"].tolist()
                self._waiting[s.name] = deque((t, key, y) for (t, key), y in zip(pairs, labels, strict=True))

    def _told(self) -> str:
        return json.dumps([self.delay, [s.model_dump(mode="json") for s in self.settings]])

    def _keys(self, setting: AsOf, columns: Columns) -> tuple[Ints, NDArray[np.bool_]]:
        own = {}
        for c in setting.by:
            if c not in columns:
                raise DataError(f"running statistics: statistic '{setting.name}' needs the key column '{c}'")
            values = pl.Series(columns[c])
            values = as_type(values, value_type(values.dtype), f"key column '{c}'")
            edges = self.edges.get(setting.name, {}).get(c)
            own[c] = values if edges is None else cut(values, np.asarray(edges, np.float64))
        return key_hash(own, setting.by)


_NO_KEY = 0  # an event without a key still counts for everyone; no value hashes to 0 but by a chance of 2^-64


class _Sums:
    """total, weight and the last moment of each key, as of that moment, and everyone's."""

    def __init__(self, setting: AsOf) -> None:
        self.setting = setting
        self.half_life = float(milliseconds(setting.half_life)) if setting.half_life else None
        self.slot: dict[int, int] = {}
        self.total, self.weight, self.last = np.zeros(1024), np.zeros(1024), np.zeros(1024, np.int64)
        self.everyone = np.zeros(2)  # labels, impressions

    def add(self, ts: int, key: int, label: float) -> None:
        """One impression."""
        self.everyone += (label, 1.0)
        if key == _NO_KEY:
            return
        at = self.slot.setdefault(key, len(self.slot))
        if at == len(self.last):
            self.total, self.weight, self.last = (np.concatenate([a, np.zeros_like(a)]) for a in (self.total, self.weight, self.last))
        kept = 1.0 if self.half_life is None else np.exp2(-(ts - self.last[at]) / self.half_life)
        self.total[at] = label + kept * self.total[at]
        self.weight[at] = 1.0 + kept * self.weight[at]
        self.last[at] = ts

    def read(self, hashes: Ints, there: NDArray[np.bool_], now: int) -> Floats:
        """The statistic of keys [n]."""
        at = np.array([self.slot.get(key, -1) for key in hashes.tolist()], np.int64)
        known = there & (at >= 0)
        at = np.where(known, at, 0)
        age = np.where(known, now - self.last[at], 0).astype(np.float64)
        left = np.where(known, 1.0 if self.half_life is None else np.exp2(-age / self.half_life), 0.0)
        seen = Seen(self.total[at] * left, self.weight[at] * left, np.where(known, age, np.nan))
        if self.setting.since_last:
            return np.log1p(seen.age / 1000)
        if self.setting.label is None:
            return np.log1p(seen.weight)
        return log_odds(seen, Seen(*(np.full(len(at), v) for v in (*self.everyone, np.nan))), self.setting.smoothing)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        n = len(self.slot)
        return {"keys": np.array(list(self.slot), np.int64), "total": self.total[:n], "weight": self.weight[:n], "last": self.last[:n],
                "everyone": self.everyone}  # fmt: skip

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        keys = arrays["keys"].tolist()
        self.slot = {int(key): n for n, key in enumerate(keys)}
        room = np.zeros(max(1024 - len(keys), 0))
        self.total, self.weight = (np.concatenate([arrays[n].astype(np.float64), room]) for n in ("total", "weight"))
        self.last = np.concatenate([arrays["last"].astype(np.int64), room.astype(np.int64)])
        self.everyone = arrays["everyone"].astype(np.float64)
