"""CAS against plain numpy written from its equations, and the trap of BatchNorm."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from prerank.config import Cas, ConfigError
from prerank.layers import FullyConnected
from prerank.serving.folding import folded
from prerank.synergy import CycleAdaptive
from tests.conftest import MODELS
from tests.synergy.world import synergised

CHOICES = itertools.product((0, 1, 2, 3), ("after", "before"), ("second", "two"))
OPTIONS = [dict(zip(("cycles", "gate", "norm"), chosen, strict=True)) for chosen in CHOICES]


def layer_of(options: dict[str, Any], norm: bool = True) -> CycleAdaptive:
    torch.manual_seed(1)
    layer = CycleAdaptive(FullyConnected(6, 4, norm=norm), Cas(**options)).double()
    for p in layer.parameters():
        torch.nn.init.normal_(p, std=0.7)
    return layer


def normed(x: np.ndarray, norm: Any) -> np.ndarray:
    """BatchNorm by the batch's own mean and variance."""
    if isinstance(norm, torch.nn.Identity):
        return x
    return (x - x.mean(0)) / np.sqrt(x.var(0) + norm.eps) * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def oracle(layer: CycleAdaptive, x: np.ndarray, cycles: int, gate: str) -> np.ndarray:
    w, b, we, be = (p.detach().numpy() for m in (layer.layer.linear, layer.excite) for p in (m.weight, m.bias))
    weighed = x
    for _ in range(cycles):
        z = normed(weighed @ w.T + b, layer.first_norm)
        z = np.maximum(z, 0) if gate == "after" else z
        weighed = x * (2 / (1 + np.exp(-(z @ we.T + be))))
    return np.maximum(normed(weighed @ w.T + b, layer.layer.norm), 0)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_against_plain_numpy(options, norm):
    layer = layer_of(options, norm)
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=(9, 6))
        found = layer(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(found, oracle(layer, x, options["cycles"], options["gate"]), atol=1e-6)


def test_it_starts_as_the_layer_it_replaces():
    layer = FullyConnected(6, 4)
    x = torch.randn(9, 6)
    assert torch.equal(CycleAdaptive(layer, Cas())(x), layer(x))


def test_running_statistics_are_those_of_the_last_pass_alone():
    """The trap: one norm for both passes would keep statistics of neither, and eval mode would say something else than training."""
    layer, x = layer_of({"cycles": 1}), torch.randn(512, 6, dtype=torch.float64)
    for _ in range(300):
        trained = layer(x)
    norm = layer.layer.norm
    assert int(norm.num_batches_tracked) == 300
    z = np.maximum(x.numpy() @ layer.layer.linear.weight.detach().numpy().T + layer.layer.linear.bias.detach().numpy(), 0)
    weighed = x.numpy() * 2 / (1 + np.exp(-(z @ layer.excite.weight.detach().numpy().T + layer.excite.bias.detach().numpy())))
    second = weighed @ layer.layer.linear.weight.detach().numpy().T + layer.layer.linear.bias.detach().numpy()
    np.testing.assert_allclose(norm.running_mean.numpy(), second.mean(0), atol=1e-6)
    np.testing.assert_allclose(norm.running_var.numpy(), second.var(0, ddof=1), atol=1e-6)
    np.testing.assert_allclose(layer.eval()(x).detach().numpy(), trained.detach().numpy(), atol=0.02)  # but for n against n - 1


def test_norm_two_keeps_statistics_of_each_pass():
    layer, x = layer_of({"norm": "two"}), torch.randn(64, 6, dtype=torch.float64)
    for _ in range(300):
        layer(x)
    first = x.numpy() @ layer.layer.linear.weight.detach().numpy().T + layer.layer.linear.bias.detach().numpy()
    np.testing.assert_allclose(layer.first_norm.running_mean.numpy(), first.mean(0), atol=1e-6)


def test_detach_stops_the_gradient_through_the_first_pass():
    x = torch.randn(9, 6, dtype=torch.float64)
    gradients = []
    for detach in (False, True):
        layer = layer_of({"detach": detach}).train()
        layer(x).square().sum().backward()
        gradients.append((layer.layer.linear.weight.grad, layer.excite.weight.grad))
    torch.testing.assert_close(gradients[0][1], gradients[1][1])
    assert not torch.allclose(gradients[0][0], gradients[1][0])


@pytest.mark.parametrize("options", [o for o in OPTIONS if o["cycles"]], ids=lambda o: "-".join(map(str, o.values())))
def test_folding_leaves_no_norm_and_says_the_same(options):
    layer = layer_of(options)
    for seed in range(20):
        layer(torch.from_numpy(np.random.default_rng(seed).normal(size=(40, 6))))
    layer.eval().requires_grad_(False)
    x = torch.randn(7, 6, dtype=torch.float64)
    quick = folded(layer, lambda m: m(x), tolerance=1e-9)
    assert quick is not layer
    assert not any(isinstance(m, torch.nn.BatchNorm1d) for m in quick.modules())


def replaced(model: torch.nn.Module) -> list[str]:
    return [name for name, m in model.named_modules() if isinstance(m, CycleAdaptive)]


@pytest.mark.parametrize(("name", "settings", "expected"), [
    ("dssm", {}, ["user.mlp.layers.1"]),
    ("dssm", {"skip_input": False}, ["user.mlp.layers.0", "user.mlp.layers.1"]),
    ("inttower", {"sides": ["item"]}, ["item.mlp.layers.1", "item.mlp.layers.2"]),
    ("dat", {"sides": ["user", "item"]}, ["user.inner.mlp.layers.1", "item.inner.mlp.layers.1"]),
    ("rcg", {}, ["user.layers.0.network.0", "user.layers.1.network.0"]),
    ("dssm", {"cycles": 0}, []),
])  # fmt: skip
def test_which_layers_are_replaced(name, settings, expected):
    assert replaced(synergised(name, {"cas": settings})) == expected


def test_a_tower_without_such_layers_is_refused():
    with pytest.raises(ConfigError, match=r"model 'mf': synergy\.cas: the user tower has no fully connected layer"):
        synergised("mf", {"cas": {}})


def test_only_w_and_b_of_the_gate_are_new():
    plain, cycled = synergised("dssm", None), synergised("dssm", {"cas": {}})
    extra = sum(p.numel() for p in cycled.parameters()) - sum(p.numel() for p in plain.parameters())
    assert extra == MODELS["dssm"]["hidden"][0] * (MODELS["dssm"]["hidden"][1] + 1)


@pytest.mark.parametrize("rows", [1, 9, 64, 100])
@pytest.mark.parametrize("options", [{}, {"detach": True}, {"gate": "before"}, {"gate": "before", "detach": True}], ids=str)
def test_the_two_products_at_once_are_the_steps_written_out(options, rows, monkeypatch):
    """Outputs and all gradients, in training."""
    seen = []
    for at_once in (True, False):
        if not at_once:
            monkeypatch.setattr(CycleAdaptive, "_at_once", lambda self, x: False)
        layer = layer_of(options, norm=rows > 1).train()
        x = torch.randn(rows, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
        out = layer(x)
        weights = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        seen.append((out, *torch.autograd.grad((out * weights).sum(), [x, *layer.parameters()])))
    for one, other in zip(*seen, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


def test_at_once_in_half_precision_is_near():
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        layer = layer_of({}).float().train()
        x = torch.randn(64, 6, generator=torch.Generator().manual_seed(2))
        with torch.autocast("cpu", dtype=dtype, enabled=dtype == torch.bfloat16):
            layer(x).float().square().sum().backward()
        assert layer.excite.weight.grad.dtype == torch.float32
        gradients.append(torch.cat([p.grad.flatten() for p in layer.parameters()]))
    assert (gradients[0] - gradients[1]).norm() < 0.1 * gradients[0].norm()


def test_where_other_steps_lie_between_they_are_written_out():
    x = torch.zeros(4, 6)
    assert layer_of({})._at_once(x)
    assert not any(layer_of(o)._at_once(x) for o in ({"cycles": 2}, {"norm": "two"}))
    assert not layer_of({}).eval()._at_once(x)
