"""Stored item vectors that can be scored exactly, and the table from raw ids to their rows."""

from prerank.index.exact import HeadGroup, ItemMatrix, top_k
from prerank.index.ids import IdError, Ids
from prerank.index.rows import DTYPES, DType, pack, padded, unpack

__all__ = ["DTYPES", "DType", "HeadGroup", "IdError", "Ids", "ItemMatrix", "pack", "padded", "top_k", "unpack"]
