"""DAT's category alignment against numpy, written from the formula."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from prerank.batch import Batch, Group, Output, Representation
from prerank.losses import CategoryAlignmentTerm
from tests.conftest import small_batch

torch.manual_seed(0)


def made(categories: list[list[int]] | list[int], seed: int = 0, heads: int = 2) -> tuple[Batch, Output]:
    """A batch whose items have these categories, each met once, and random vectors for them."""
    items = len(categories)
    g = torch.Generator().manual_seed(seed)
    column = torch.tensor(categories, dtype=torch.int32)
    batch = small_batch(lists=items, items=items)
    batch = replace(batch, item={"item_id": batch.item["item_id"], "category": column}, item_index=torch.arange(items)[:, None],
                    where=torch.ones(items, 1, dtype=torch.bool))  # fmt: skip
    vectors = torch.randn(items, heads, 3, generator=g).requires_grad_()
    return batch, Output(torch.zeros(items, 1, 1), None, Representation((vectors,)), (Group(1, heads, 3),))


def expected(out: Output, members: list[list[int]]) -> float:
    """Members of each category, the largest first."""
    assert out.item is not None
    v = out.item.groups[0].detach().numpy().reshape(len(out.item.groups[0]), -1)
    covariances = [np.cov(v[rows], rowvar=False) for rows in members]
    return float(sum(((covariances[0] - c) ** 2).sum() for c in covariances[1:]))


def test_it_is_its_formula() -> None:
    batch, out = made([3, 4, 3, 5, 3, 4, 3, 6])  # 5 and 6 have one item: no covariance
    got = CategoryAlignmentTerm(feature="category")(batch, out)
    assert got.item() == pytest.approx(expected(out, [[0, 2, 4, 6], [1, 5]]), rel=1e-5)
    got.backward()
    assert out.item is not None
    assert out.item.groups[0].grad is not None
    moved = out.item.groups[0].grad.abs().sum(dim=(1, 2)) > 0
    assert moved.tolist() == [True, True, True, False, True, True, True, False]


def test_an_item_of_several_categories_belongs_to_each_and_once() -> None:
    batch, out = made([[3, 4, 0], [3, 3, 0], [4, 0, 0], [3, 5, 4], [0, 0, 0], [3, 0, 0]])
    got = CategoryAlignmentTerm(feature="category")(batch, out).item()
    assert got == pytest.approx(expected(out, [[0, 1, 3, 5], [0, 2, 3]]), rel=1e-5)


def test_small_categories_are_left_out() -> None:
    batch, out = made([3] * 5 + [4] * 3 + [5] * 4)
    members = [[0, 1, 2, 3, 4], [8, 9, 10, 11]]
    assert CategoryAlignmentTerm(feature="category", at_least=4)(batch, out).item() == pytest.approx(expected(out, members), rel=1e-5)
    assert CategoryAlignmentTerm(feature="category", at_least=5)(batch, out).item() == 0.0


def test_items_that_are_only_padding_or_of_another_stage_are_left_out() -> None:
    batch, out = made([3] * 4 + [4] * 3)
    where = torch.ones(7, 1, dtype=torch.bool)
    where[5] = False
    stage = torch.zeros(7, 1, dtype=torch.int8)
    stage[1] = 4
    seen = expected(out, [[0, 2, 3], [4, 6]])
    got = CategoryAlignmentTerm(feature="category", stages=(0,))(replace(batch, where=where, stage=stage), out).item()
    assert got == pytest.approx(seen, rel=1e-5)


def test_cosine_vectors_are_compared_at_length_1() -> None:
    batch, out = made([3, 3, 3, 4, 4], heads=1)
    assert out.item is not None
    unit = torch.nn.functional.normalize(out.item.groups[0].detach(), dim=2)
    once = replace(out, groups=(replace(out.groups[0], cosine=True),))
    twice = replace(out, item=Representation((unit,)))
    term = CategoryAlignmentTerm(feature="category")
    assert term(batch, once).item() == pytest.approx(term(batch, twice).item(), rel=1e-5)
    assert term(batch, once).item() != pytest.approx(term(batch, out).item(), rel=1e-2)


def test_one_category_alone_is_aligned() -> None:
    batch, out = made([3, 3, 3])
    assert CategoryAlignmentTerm(feature="category")(batch, out).item() == 0.0


def test_wrong_options_are_told() -> None:
    with pytest.raises(ValueError, match="feature: must name the item feature that is the category; got none"):
        CategoryAlignmentTerm()
    with pytest.raises(ValueError, match="at_least: must be at least 2; got 1"):
        CategoryAlignmentTerm(feature="category", at_least=1)
