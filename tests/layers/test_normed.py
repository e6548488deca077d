"""BatchNorm, ReLU and dropout as one: against torch's three, and dropout by what it must do on average."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from prerank.layers import normed
from prerank.layers.mlp import FullyConnected
from prerank.layers.normed import fits, normed_relu

pytestmark = pytest.mark.skipif(normed.kernel is None, reason="the kernel was not compiled (no C compiler)")


def norms(width: int) -> tuple[nn.BatchNorm1d, nn.BatchNorm1d]:
    norm = nn.BatchNorm1d(width)
    nn.init.uniform_(norm.weight, -0.5, 2.0)
    nn.init.normal_(norm.bias)
    return norm, copy.deepcopy(norm)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 1), (3, 5), (64, 16), (257, 33), (1000, 300)])
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_without_dropout_it_is_batchnorm_and_relu(dtype: torch.dtype, shape: tuple[int, int], shift: float) -> None:
    torch.manual_seed(shape[0])
    ours, theirs = norms(shape[1])
    x = (torch.randn(shape) * 3 + shift).to(dtype)
    a, b = x.clone().requires_grad_(), x.double().requires_grad_()
    theirs.double()
    y, z = normed_relu(a, ours), torch.relu(theirs(b))
    g = torch.randn(shape).to(dtype)
    y.backward(g)
    z.backward(g.double())
    assert a.grad is not None
    assert b.grad is not None
    close = {"rtol": 1e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
    kink = z.detach().abs() < 1e-3  # on which side of 0 a number lies that close to it may differ
    torch.testing.assert_close(y.double(), z, **close)
    torch.testing.assert_close(a.grad.double().masked_fill(kink, 0), b.grad.masked_fill(kink, 0), **close)
    for name in ("weight", "bias"):
        torch.testing.assert_close(getattr(ours, name).grad.double(), getattr(theirs, name).grad, rtol=1e-3, atol=1e-2 if shift else 1e-3)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-5, atol=1e-5, check_dtype=False)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_scales_the_rest(p: float) -> None:
    torch.manual_seed(1)
    norm = nn.BatchNorm1d(64)
    nn.init.constant_(norm.bias, 10.0)  # everything is above zero
    x = torch.randn(4096, 64)
    dropped = round(p * 65536)
    y, whole = normed_relu(x, norm, dropped).detach(), normed_relu(x, norm).detach()
    kept = y > 0
    assert kept.float().mean().item() == pytest.approx(1 - p, abs=5e-3)
    torch.testing.assert_close(y[kept], whole[kept] / (1 - dropped / 65536))
    for share in (kept.float().mean(dim=0), kept.float().mean(dim=1)):  # no row and no column is favoured: within five deviations of a coin
        count = kept.numel() / len(share)
        assert ((share - (1 - p)).abs() < 5 * (p * (1 - p) / count) ** 0.5).all()
    pairs = (kept[:, 1:] & kept[:, :-1]).float().mean().item(), (kept[1:] & kept[:-1]).float().mean().item()
    for pair in pairs:  # neighbours know nothing of each other
        assert pair == pytest.approx((1 - p) ** 2, abs=5e-3)


def test_a_call_draws_anew_and_a_seed_repeats_it() -> None:
    norm, x = nn.BatchNorm1d(16), torch.randn(128, 16)

    def draw() -> Tensor:
        return normed_relu(x, norm, 32768).detach() == 0

    torch.manual_seed(3)
    first, second = draw(), draw()
    torch.manual_seed(3)
    assert torch.equal(draw(), first)
    assert not torch.equal(second, first)


def test_the_gradient_goes_where_the_output_is() -> None:
    torch.manual_seed(0)
    norm, reference = norms(8)
    x = torch.randn(50, 8)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = normed_relu(a, norm, 20000)
    z = torch.relu(reference(b)) * (y > 0) * (65536 / (65536 - 20000))
    torch.testing.assert_close(y, z)
    g = torch.randn(50, 8)
    y.backward(g)
    z.backward(g)
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)


def test_a_nan_goes_through() -> None:
    x = torch.randn(10, 3)
    x[4, 1] = float("nan")
    assert normed_relu(x, nn.BatchNorm1d(3))[:, 1].isnan().all()


def test_what_it_is_not_for() -> None:
    norm = nn.BatchNorm1d(4)
    assert fits(torch.zeros(2, 4), norm)
    assert not fits(torch.zeros(1, 4), norm)
    assert not fits(torch.zeros(2, 4, dtype=torch.float64), norm)
    assert not fits(torch.zeros(2, 4), nn.BatchNorm1d(4, affine=False))


def test_a_layer_without_the_kernel_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer, x = FullyConnected(6, 5), torch.randn(40, 6)
    with_kernel = layer(x)
    monkeypatch.setattr(normed, "kernel", None)
    torch.testing.assert_close(layer(x), with_kernel)


def test_a_frozen_norm_or_dropout_stays_as_it_is() -> None:
    torch.manual_seed(0)
    layer = FullyConnected(6, 5, dropout=0.5)
    layer.norm.eval()
    layer.dropout.eval()
    x = torch.randn(40, 6)
    torch.testing.assert_close(layer(x), layer.eval()(x))


def test_what_is_not_plain_memory_is_left_to_torch() -> None:
    x, norm = torch.randn(6, 4), nn.BatchNorm1d(4)
    assert not fits(x, nn.BatchNorm1d(4, device="meta"))
    assert not fits(x, nn.BatchNorm1d(3))
    norm.weight = nn.Parameter(torch.ones(8)[::2])
    assert not fits(x, norm)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_default_type_does_not_matter(dtype: torch.dtype) -> None:
    norm, x = nn.BatchNorm1d(300), torch.randn(50, 300)
    expected = normed_relu(x, norm)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        torch.testing.assert_close(normed_relu(x, norm), expected)
    finally:
        torch.set_default_dtype(before)


def test_a_first_row_far_off_costs_no_digits() -> None:
    x = torch.randn(20_000, 3)
    x[0] = 1e5
    ours, theirs = norms(3)
    normed_relu(x, ours)
    theirs.double()(x.double())
    torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=1e-4, atol=0, check_dtype=False)
