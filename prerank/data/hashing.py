"""Stable 64-bit hashes: the same on every machine and in every version, so that a split never moves.

`mix` is the finaliser of SplitMix64 (Steele, Lea, Flood 2014), a bijection on 64 bits.
"""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl
from numpy.typing import NDArray


def mix(keys: NDArray[np.int64] | NDArray[np.uint64], seed: int = 0) -> NDArray[np.uint64]:
    """Hash of integers [n] under a seed."""
    z = keys.astype(np.uint64) + np.uint64((0x9E3779B97F4A7C15 * (seed + 1)) % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(keys: NDArray[np.int64] | NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each key, a function of key and seed alone.  # [n]"""
    return (mix(mix(keys), seed) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def of_values(values: pl.Series) -> NDArray[np.uint64]:
    """Hash of Int64 or String values [n]."""
    if values.dtype == pl.Int64:
        return mix(values.to_numpy())
    distinct = values.unique(maintain_order=True)
    digests = [int.from_bytes(hashlib.blake2b(str(v).encode(), digest_size=8).digest(), "little") for v in distinct]
    hashes = pl.Series(digests, dtype=pl.UInt64)
    return values.replace_strict(distinct, hashes, return_dtype=pl.UInt64).to_numpy()


def combine(columns: list[NDArray[np.generic]]) -> NDArray[np.int64]:
    """One hash a row of columns [n] or [n, m], equal for equal rows; two different rows agree with probability 2^-64."""
    total = np.zeros(len(columns[0]), np.uint64)
    salt = 1
    for column in columns:
        flat = column.reshape(len(column), -1)
        bits = flat.view(np.uint32) if flat.dtype.itemsize == 4 else flat.astype(np.int64).view(np.uint64)
        for j in range(bits.shape[1]):
            total += mix(bits[:, j].astype(np.uint64), salt)
            salt += 1
    return mix(total).view(np.int64)
