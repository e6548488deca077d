"""Folding changes nothing that the model says, and is not believed where it would."""

import torch
from torch import nn

from prerank.serving.folding import folded


class Plain(nn.Module):
    def __init__(self, swapped: bool = False) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(5, 4, bias=False), nn.BatchNorm1d(4)
        self.rest = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False), nn.ReLU(), nn.Linear(4, 4))
        self.swapped = swapped
        with torch.no_grad():
            for norm in (self.norm, self.rest[1]):
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2)
            self.norm.weight.uniform_(0.5, 2)
            self.norm.bias.normal_()

    def forward(self, x):
        h = self.linear(x)
        return self.rest(h) if self.swapped else self.rest(self.norm(h))


def test_pairs_are_folded_and_say_the_same():
    torch.manual_seed(0)
    model, x = Plain().eval(), torch.randn(30, 5)
    quick = folded(model, lambda m: m(x))
    assert not any(isinstance(m, nn.BatchNorm1d) for m in quick.modules())
    y = torch.randn(11, 5)
    torch.testing.assert_close(quick(y), model(y), rtol=1e-5, atol=1e-5)
    assert any(isinstance(m, nn.BatchNorm1d) for m in model.modules())  # the model itself is left alone


def test_a_pair_that_is_not_run_in_that_order_is_left():
    torch.manual_seed(0)
    model, x = Plain(swapped=True).eval(), torch.randn(30, 5)
    assert folded(model, lambda m: m(x)) is model


def test_nothing_to_fold():
    model = nn.Sequential(nn.Linear(2, 2)).eval()
    assert folded(model, lambda m: m(torch.zeros(1, 2))) is model
