"""A log that fails on demand: before anything was done, or after it was done and the answer got lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prerank.stream import Log, LogError


class Flaky:
    """plan: for each call of append in turn "ok", "before" (nothing done) or "after" (done, answer lost); then all is well."""

    def __init__(self, log: Log, plan: Sequence[str] = ()) -> None:
        self._log, self.plan, self.appends = log, list(plan), 0

    def append(self, messages: Sequence[bytes], keys: Sequence[bytes] | None = None, *, partition: int | None = None) -> list[int]:
        now = self.plan.pop(0) if self.plan else "ok"
        self.appends += 1
        if now == "before":
            raise LogError("log 'flaky': cannot be reached")
        offsets = self._log.append(messages, keys, partition=partition)
        if now == "after":
            raise LogError("log 'flaky': the answer was lost")
        return offsets

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)
