from __future__ import annotations

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from prerank.layers import pairwise_products


@given(fields=st.integers(1, 7), width=st.integers(1, 4), seed=st.integers(0, 99))
def test_it_is_the_sum_over_pairs(fields: int, width: int, seed: int) -> None:
    v = torch.randn(3, fields, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    expected = sum((v[:, i] * v[:, j] for i, j in itertools.combinations(range(fields), 2)), torch.zeros(3, width, dtype=torch.float64))
    torch.testing.assert_close(pairwise_products(v), expected)
