"""The average against its formula, and that what is done to it stays with it."""

from __future__ import annotations

import torch
from torch import nn

from prerank.training.averaging import Average


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_the_average_is_its_formula() -> None:
    net = model()
    average = Average(net, 0.5, frozenset())
    expected, mean = net[0].weight.detach().clone(), net[1].running_mean.clone()
    for step in range(1, 6):
        with torch.no_grad():
            net[0].weight.add_(torch.randn(2, 3))
        net[1].running_mean.add_(1)
        average.update()
        d = min(0.5, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * net[0].weight.detach()
        mean = d * mean + (1 - d) * net[1].running_mean
    live = net[0].weight.detach().clone()
    with average.applied():
        torch.testing.assert_close(net[0].weight.detach(), expected)
        torch.testing.assert_close(net[1].running_mean, mean)
        net[0].bias.data.fill_(7.0)
    assert torch.equal(net[0].weight.detach(), live)
    assert not (net[0].bias == 7).any()
    with average.applied():
        assert (net[0].bias == 7).all()


def test_what_is_left_out_and_no_decay_change_nothing() -> None:
    for average_of in (lambda net: Average(net, None, frozenset()), lambda net: Average(net, 0.9, frozenset({"0.weight"}))):
        net = model()
        average = average_of(net)
        with torch.no_grad():
            net[0].weight.add_(1)
        average.update()
        before = net[0].weight.detach().clone()
        with average.applied():
            assert torch.equal(net[0].weight.detach(), before)


def test_a_checkpoint_continues_it() -> None:
    net = model()
    first, second = Average(net, 0.9, frozenset()), Average(net, 0.9, frozenset())
    for _ in range(3):
        with torch.no_grad():
            net[0].weight.mul_(1.5)
        first.update()
    second.load_tensors({k: v.clone() for k, v in first.tensors().items()})
    first.update()
    second.update()
    assert second.steps == 4
    assert all(torch.equal(first.average[k], second.average[k]) for k in first.average)
