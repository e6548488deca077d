"""log sum exp of all products: against torch's own, in value and gradient, in stripes and in one."""

from __future__ import annotations

import pytest
import torch

from prerank.losses import partition
from prerank.losses.partition import log_partition


def tables(u: int, n: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(u * 1000 + n)
    users, items = (torch.randn(rows, 7, generator=generator, dtype=dtype).requires_grad_() for rows in (u, n))
    return users, items, torch.randint(0, 3, (u,), generator=generator)


def heads(u: int, n: int, p: int, q: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(p * 1000 + q)
    users, items = (torch.randn(*size, 7, generator=generator, dtype=torch.float64).requires_grad_() for size in ((u, p), (n, q)))
    return users, items, torch.randint(0, 3, (u,), generator=generator)


@pytest.mark.parametrize(("u", "n"), [(1, 1), (5, 3), (64, 64), (65, 63), (200, 130)])
@pytest.mark.parametrize("stripe", [1, 1 << 19], ids=["stripes", "whole"])
def test_value_and_gradients_are_those_of_logsumexp(u: int, n: int, stripe: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "STRIPE", stripe)
    users, items, weights = tables(u, n)
    got = log_partition(users, items, weights)
    found = torch.autograd.grad(3 * got, (users, items))
    want = (weights * torch.logsumexp(users @ items.T, dim=1)).sum()
    assert got.item() == pytest.approx(want.item(), rel=1e-12)
    for a, b in zip(found, torch.autograd.grad(3 * want, (users, items)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("p", "q"), [(1, 3), (2, 1), (3, 2)])
@pytest.mark.parametrize("stripe", [1, 1 << 19], ids=["stripes", "whole"])
def test_of_heads_a_score_is_the_sum_of_the_largest(p: int, q: int, stripe: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "STRIPE", stripe)
    users, items, weights = heads(130, 70, p, q)
    got = log_partition(users, items, weights)
    found = torch.autograd.grad(3 * got, (users, items))
    scores = torch.einsum("upk,nqk->unpq", users, items).amax(dim=3).sum(dim=2)
    want = (weights * torch.logsumexp(scores, dim=1)).sum()
    assert got.item() == pytest.approx(want.item(), rel=1e-12)
    for a, b in zip(found, torch.autograd.grad(3 * want, (users, items)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_gradients_against_finite_differences() -> None:
    users, items, weights = tables(6, 4)
    assert torch.autograd.gradcheck(lambda u, v: log_partition(u, v, weights), (users, items))
    users, items, weights = heads(5, 4, 2, 3)
    assert torch.autograd.gradcheck(lambda u, v: log_partition(u, v, weights), (users, items))


def test_equal_heads_share_the_gradient_with_nobody() -> None:
    users, items, weights = torch.ones(1, 1, 2).requires_grad_(), torch.ones(1, 3, 2).requires_grad_(), torch.ones(1)
    (of_items,) = torch.autograd.grad(log_partition(users, items, weights), items)
    assert of_items[0].tolist() == [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]  # the first of those that are the largest


def test_large_products_stay_finite() -> None:
    users, items, weights = tables(9, 5, torch.float32)
    value = log_partition(users * 1e3, items * 1e3, weights)
    value.backward()
    assert torch.isfinite(value)
    assert users.grad is not None
    assert torch.isfinite(users.grad).all()


def test_half_precision_sums_in_float32() -> None:
    users, items, weights = tables(100, 90, torch.float32)
    exact = log_partition(users.detach(), items.detach(), weights)
    half = [t.detach().bfloat16().requires_grad_() for t in (users, items)]
    value = log_partition(half[0], half[1], weights)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact.item(), rel=5e-3)
    assert half[0].grad is not None
    assert half[0].grad.dtype == torch.bfloat16


def test_rows_of_weight_zero_are_nothing() -> None:
    users, items, _ = tables(8, 5)
    weights = torch.zeros(8, dtype=torch.int64)
    value = log_partition(users, items, weights)
    value.backward()
    assert value.item() == 0.0
    assert users.grad is not None
    assert users.grad.abs().sum() == 0


def test_under_autocast_it_is_the_same() -> None:
    users, items, weights = tables(20, 9, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = log_partition(users, items, weights)
    assert value.item() == log_partition(users, items, weights).item()


def test_a_user_of_weight_zero_may_be_anything() -> None:
    users, items, weights = tables(5, 4, torch.float32)
    weights[:] = torch.tensor([0, 1, 2, 0, 1])
    wild = users.detach().clone()
    wild[0] = 1e30
    assert log_partition(wild, items, weights).item() == log_partition(users, items, weights).item()
