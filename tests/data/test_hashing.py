"""Hashes are fixed for ever: a split must not move between versions or machines."""

from __future__ import annotations

import numpy as np
import polars as pl

from prerank.data.hashing import combine, mix, of_values, uniform


def splitmix(x: int, seed: int) -> int:
    """SplitMix64's finaliser in plain integers."""
    z = (x + 0x9E3779B97F4A7C15 * (seed + 1)) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_mix() -> None:
    keys = [0, 1, -1, 2**63 - 1, -(2**63), 12345]
    assert mix(np.array(keys), 7).tolist() == [splitmix(k, 7) for k in keys]
    assert mix(np.array([0])).tolist() == [0xE220A8397B1DCDAF]  # the first output of SplitMix64 with seed 0


def test_uniform() -> None:
    u = uniform(np.arange(100_000), 3)
    assert 0 <= u.min() < 1e-3
    assert 0.999 < u.max() < 1
    assert np.histogram(u, 10, (0, 1))[0].min() > 9_700
    assert abs(np.corrcoef(u, uniform(np.arange(100_000), 4))[0, 1]) < 0.02


def test_text() -> None:
    hashes = of_values(pl.Series(["a", "b", "a", "ü"]))
    assert hashes[0] == hashes[2]
    assert len(set(hashes.tolist())) == 3
    assert hashes[0] == 0x2F42665B399EF840  # blake2b of "a", 8 bytes, little end first


def test_combine_is_equal_for_equal_rows_only() -> None:
    a = np.array([1, 1, 2, 1, 1], np.int32)
    b = np.array([[1, 2], [1, 2], [1, 2], [2, 1], [1, 2]], np.int32)
    c = np.array([0.5, 0.5, 0.5, 0.5, 0.25], np.float32)
    keys = combine([a, b, c])
    assert keys.dtype == np.int64
    assert keys[0] == keys[1]
    assert len(set(keys.tolist())) == 4
