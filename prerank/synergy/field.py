"""A field that a tower reads and that was remembered: cached vectors of its id, how often and when they were written.

    field = Linear [ LayerNorm(vector) * seen ; seen ; log(1 + count) ; log(1 + hours since) ]     a part for each cache

LayerNorm before use, zeros and a "seen" bit for a cold id (ours, REFERENCE 1.3); count and age as inputs are ours, too: a cache of
answers is a running mean in disguise, so that every table also carries the control that is told count and age alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prerank.layers import Linear
from prerank.store import EmaCache, Memory

CHUNK = 1 << 16  # ids whose field is made at a time, where it is made of all


class MemoryField(nn.Module):
    """ids [rows] -> a field [rows, D]; see the module's first lines.

    caches   what is remembered of an id
    width    D
    inputs   'vector', 'vector_count_age' or 'count_age' (config.synergy.Cache)
    vocabulary, rows   whose rows the ids are, and how many
    """

    def __init__(self, caches: Sequence[EmaCache], width: int, inputs: str, vocabulary: str, rows: int) -> None:
        super().__init__()
        self.vocabulary, self.rows = vocabulary, rows
        self.caches = nn.ModuleList(caches)
        self.vector, self.count_age = inputs != "count_age", inputs != "vector"
        numbers = sum((cache.width if self.vector else 0) + 1 + 2 * self.count_age for cache in caches)
        self.project = Linear(numbers, width)
        self.table: Tensor | None = None  # of all ids, where nothing moves any more
        self.cold: str | None = None  # why it has nothing to tell, where it should have: every id is then one that was never seen

    def forward(self, ids: Tensor) -> Tensor:
        """[rows] -> [rows, D]."""
        if self.table is not None:
            return F.embedding(ids.long(), self.table)
        if self.cold is not None:
            nobody: Tensor = self.project(torch.zeros(1, self.project.in_features, device=self.project.weight.device))
            return nobody.expand(len(ids), -1)
        made: Tensor = self.project(self.numbers([cache.read(ids) for cache in self.caches]))  # type: ignore[operator]
        return made

    def numbers(self, memories: Sequence[Memory]) -> Tensor:
        """What each cache remembers of ids [rows] -> what the projection reads.  # [rows, numbers]"""
        parts: list[Tensor] = []
        for cache, memory in zip(self.caches, memories, strict=True):
            parts += self._parts(cache, memory)  # type: ignore[arg-type]
        return torch.cat(parts, dim=1)

    def _parts(self, cache: EmaCache, memory: Memory) -> list[Tensor]:
        seen = (memory.counts > 0).float().unsqueeze(1)  # [rows, 1]
        parts = [F.layer_norm(memory.vectors, (cache.width,)) * seen] if self.vector else []
        parts.append(seen)
        if self.count_age:
            parts += [torch.log1p(memory.counts.float()).unsqueeze(1), torch.log1p(cache.age(memory)).unsqueeze(1)]
        return parts

    def forget_rows(self, vocabulary: str, rows: Tensor) -> None:
        """Rows [n] of a vocabulary have other ids now, of whom nothing is remembered."""
        if vocabulary == self.vocabulary:
            for cache in self.caches:
                cache.forget(rows)  # type: ignore[operator]

    @torch.no_grad()
    def for_serving(self) -> None:
        """Make the field of every id once: weights and caches of a generation stand still, and a tower then gathers a row."""
        device = self.project.weight.device
        parts = [self(torch.arange(i, min(i + CHUNK, self.rows), device=device)) for i in range(0, self.rows, CHUNK)]
        self.table = torch.cat(parts)
