"""Exact scores of one user against stored items: a gather and a MaxSim in one pass over the rows' cache lines.

    logits[c, t] = user_bias[t] + item_bias[row_c, t] + sum over groups of t of MaxSim(user heads, item heads)
    MaxSim       = sum over user heads of max over item heads of <u_h, v_h'>

No network runs here, and no Python runs per candidate. One thread: a server parallelises over requests.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch

from prerank.index.extension import maxsim
from prerank.index.rows import DTYPES, DType, aligned, pack, padded, unpack

_CODES = {"fp32": 0, "bf16": 1, "int8": 2}  # as in _maxsim.c


class HeadGroup(NamedTuple):
    """Shape of one head group; the same four numbers as `prerank.batch.Group`, which lives on this floor."""

    user_heads: int
    item_heads: int
    width: int
    objective: int = 0


class ItemMatrix:
    """N stored items and how they are scored.

    rows     [N, padded]   float32, uint16 (bf16) or int8, C-contiguous; may be a memory map
    bias     [N, T]        float32
    scales   [N]           float32, int8 only
    groups   the head groups; an item row is their [Hi, K] blocks one after another

    >>> items = ItemMatrix.of(np.array([[1., 0.], [0., 2.]]), np.zeros((2, 1)), [(1, 1, 2, 0)])
    >>> items.score(np.array([3., 5.]), np.array([.5]), np.array([1, 0, -1])).tolist()
    [[10.5], [3.5], [nan]]
    """

    exact = True

    def __init__(
        self,
        rows: np.ndarray,
        bias: np.ndarray,
        groups: Iterable[tuple[int, int, int, int]],
        *,
        dtype: DType = "fp32",
        scales: np.ndarray | None = None,
    ) -> None:
        self.groups = tuple(HeadGroup(*g) for g in groups)
        self.dtype: DType = dtype
        self.width = sum(g.item_heads * g.width for g in self.groups)
        self.user_width = sum(g.user_heads * g.width for g in self.groups)
        _check(rows, bias, scales, self)
        # Plain views: a memmap's own __getitem__ and buffer calls cost microseconds.
        self.rows, self.bias = rows.view(np.ndarray), bias.view(np.ndarray)
        self.scales = None if scales is None else scales.view(np.ndarray)
        self._bias = self.bias if self.bias.any() else None  # a line less to fetch a candidate where no item has a bias
        self._table = _group_table(self.groups)

    @classmethod
    def of(cls, flat: np.ndarray, bias: np.ndarray, groups: Iterable[tuple[int, int, int, int]], dtype: DType = "fp32") -> ItemMatrix:
        """From plain floats [N, width] and biases [N, T], packed in memory."""
        packed, scales = pack(flat, dtype)
        rows = aligned(packed.shape, packed.dtype)
        rows[:] = packed
        return cls(rows, np.ascontiguousarray(bias, np.float32), groups, dtype=dtype, scales=scales)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"<ItemMatrix {len(self)} items x {self.width} {self.dtype}, {len(self.groups)} head groups>"

    def score(self, user: np.ndarray, user_bias: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """User vector [sum Hu K] and bias [T], rows [C] (-1: unknown) -> logits float32 [C, T], NaN where unknown."""
        user = np.ascontiguousarray(user, np.float32)
        user_bias = np.ascontiguousarray(user_bias, np.float32)
        rows = np.ascontiguousarray(rows, np.int64)
        if user.shape != (self.user_width,):
            raise ValueError(f"user vector must be [{self.user_width}], got {list(user.shape)}")
        if user_bias.shape != self.bias.shape[1:]:
            raise ValueError(f"user bias must be [{self.bias.shape[1]}], got {list(user_bias.shape)}")
        if maxsim is None:
            if len(rows) and not -1 <= rows.min() <= rows.max() < len(self):
                raise ValueError("rows must be in [-1, N)")
            return self.score_torch(user, user_bias, rows)
        out = np.empty((len(rows), self.bias.shape[1]), np.float32)
        stored = (self.rows, _CODES[self.dtype], self.rows.strides[0], self.width, self.scales)
        maxsim.score(*stored, rows, user, user_bias, self._bias, self._table, out)
        return out

    def score_torch(self, user: np.ndarray, user_bias: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The same by torch: gather, then one product a group. Where there is no extension, and its baseline."""
        known = np.flatnonzero(rows >= 0)
        picked = rows[known]
        scales = None if self.scales is None else self.scales[picked]
        flat = torch.from_numpy(unpack(self.rows[picked], scales, self.width, self.dtype))  # [c, width]
        logits = torch.from_numpy(user_bias + self.bias[picked])  # [c, T]
        query, u, i = torch.from_numpy(user), 0, 0
        for g in self.groups:
            heads = query[u : u + g.user_heads * g.width].view(g.user_heads, g.width)
            block = flat[:, i : i + g.item_heads * g.width].reshape(-1, g.width)
            similarity = (block @ heads.T).view(len(picked), g.item_heads, g.user_heads)
            logits[:, g.objective] += similarity.amax(1).sum(1)
            u, i = u + g.user_heads * g.width, i + g.item_heads * g.width
        out = np.full((len(rows), self.bias.shape[1]), np.nan, np.float32)
        out[known] = logits.numpy()
        return out


def top_k(scores: np.ndarray, k: int) -> np.ndarray:
    """Positions of the best k of scores [C], best first, ties in their order; NaN is never among them.

    >>> top_k(np.array([.1, .9, np.nan, .9], np.float32), 3).tolist()
    [1, 3, 0]
    """
    scores = np.ascontiguousarray(scores, np.float32)
    if maxsim is None:
        order = np.argsort(-scores, kind="stable")[:k]
        return order[~np.isnan(scores[order])]
    order = np.empty(k, np.int64)
    return order[: maxsim.top_k(scores, order)]


def _group_table(groups: tuple[HeadGroup, ...]) -> np.ndarray:
    """int32 [G, 6]: Hu, Hi, K, objective, offset of the user heads, offset of the item heads."""
    table, u, i = [], 0, 0
    for g in groups:
        table.append([g.user_heads, g.item_heads, g.width, g.objective, u, i])
        u, i = u + g.user_heads * g.width, i + g.item_heads * g.width
    return np.array(table, np.int32).reshape(-1, 6)


def _check(rows: np.ndarray, bias: np.ndarray, scales: np.ndarray | None, matrix: ItemMatrix) -> None:
    """Shapes and types, once; `score` trusts them."""
    n, stored = len(rows), padded(matrix.width, matrix.dtype)
    if rows.shape != (n, stored) or rows.dtype != DTYPES[matrix.dtype] or not rows.flags.c_contiguous:
        raise ValueError(f"item rows must be {DTYPES[matrix.dtype]} [{n}, {stored}], contiguous; got {rows.dtype} {list(rows.shape)}")
    if bias.ndim != 2 or len(bias) != n or bias.dtype != np.float32 or not bias.flags.c_contiguous:
        raise ValueError(f"item bias must be float32 [{n}, T], contiguous; got {bias.dtype} {list(bias.shape)}")
    if (scales is not None) != (matrix.dtype == "int8") or (scales is not None and (scales.shape != (n,) or scales.dtype != np.float32)):
        raise ValueError(f"item scales must be float32 [{n}] for int8 and absent otherwise")
    worst = max((g.objective for g in matrix.groups), default=0)
    if worst >= bias.shape[1]:
        raise ValueError(f"a head group is for objective {worst}, there are {bias.shape[1]}")
