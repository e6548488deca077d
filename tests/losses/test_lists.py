from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from prerank.losses.lists import chosen, top_share


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(0, 12), st.data())
def test_the_top_share_sums_to_the_top_and_is_fair(values: list[int], top: int, data: st.DataObject) -> None:
    keep = torch.tensor([data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))])
    y = torch.tensor([values], dtype=torch.float64)
    share = top_share(y, keep, torch.tensor([top]))
    left = [v for v, k in zip(values, keep[0].tolist(), strict=True) if k]
    assert abs(share.sum().item() - min(top, len(left))) < 1e-12
    for v, k, s in zip(values, keep[0].tolist(), share[0].tolist(), strict=True):
        above, equal = sum(x > v for x in left), sum(x == v for x in left)
        assert abs(s - (min(max((top - above) / equal, 0), 1) if k else 0)) < 1e-12


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=5))
def test_chosen_are_exactly_the_true_ones(rows: list[list[bool]]) -> None:
    mask = torch.tensor(rows)
    index, real = chosen(mask)
    assert index.shape[1] == max(1, int(mask.sum(dim=1).max()))
    found = torch.zeros_like(mask).scatter(1, index, real)
    assert torch.equal(found | torch.zeros_like(mask), mask)
    assert torch.equal(real.sum(dim=1), mask.sum(dim=1))
