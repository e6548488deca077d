"""The tape against torch: whole towers, and every operation it knows."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prerank.batch import Representation
from prerank.serving.folding import folded
from prerank.serving.program import Program
from prerank.serving.tape import Tape, record
from tests.conftest import MODELS, small_batch, small_model

CASES = [(n, o) for n in MODELS for o in (("like",), ("like", "buy")) if len(o) == 1 or MODELS[n].get("width", 1)]  # width None: one only


@pytest.mark.parametrize(("name", "objectives"), CASES)
def test_every_tower_is_recorded_and_says_what_torch_says(name, objectives):
    model = small_model(name, objectives).eval()
    samples = small_batch(users=8).user
    quick = folded(model, lambda m: m.encode("user", samples).flat())
    tape = record(lambda columns: quick.encode("user", columns), samples)
    assert isinstance(tape, Tape)
    others = small_batch(seed=1, users=20).user
    with torch.no_grad():
        expected = model.encode("user", others)
    for i in range(20):
        vector, bias = tape({k: v[i : i + 1].numpy() for k, v in others.items()})
        np.testing.assert_allclose(vector, expected.flat()[i], rtol=1e-5, atol=1e-5)
        if expected.bias is None:
            assert bias is None
        else:
            np.testing.assert_allclose(bias, expected.bias[i].detach(), rtol=1e-5, atol=1e-5)


def encode(function):
    """A 'tower' that is one function of a float [1, 6] and an integer [1] column."""
    return lambda columns: Representation((function(columns["x"], columns["i"]).float().reshape(1, 1, -1),))


torch.manual_seed(0)
TABLE, WEIGHT, BIAS, MASK = torch.randn(9, 4), torch.randn(5, 6), torch.randn(5), torch.rand(1, 6) < 0.5
FUNCTIONS = {
    "arithmetic": lambda x, i: (2 * x + 1 - x / 3) * (x - 0.5),
    "alpha": lambda x, i: torch.add(x, x * x, alpha=3) + torch.sub(x, 2, alpha=2),
    "integers": lambda x, i: torch.stack([i.long() + 3, i.long() + 4], 1) * 2,
    "embedding": lambda x, i: F.embedding(i.long() + 1, TABLE),
    "linear": lambda x, i: F.linear(x, WEIGHT, BIAS) + F.linear(x, WEIGHT),
    "relu": lambda x, i: F.relu(x),
    "activations": lambda x, i: torch.cat([torch.tanh(x), torch.sigmoid(x), F.silu(x), F.leaky_relu(x), F.leaky_relu(x, 0.3), x.exp()], 1),
    "in place": lambda x, i: F.leaky_relu(F.silu(F.relu(x * 2, inplace=True).add_(1).mul_(x), inplace=True), 0.2, inplace=True),
    "softmax": lambda x, i: torch.softmax(x * 50, 1),
    "reductions": lambda x, i: torch.cat(
        [x.view(1, 2, 3).mean(2), x.view(1, 2, 3).sum(1), x.view(1, 2, 3).amax(2), x.sum(1, keepdim=True)], 1
    ),
    "norm": lambda x, i: F.normalize(x.view(1, 2, 3), dim=-1),
    "shapes": lambda x, i: x.unsqueeze(1).unflatten(2, (2, 3)).permute(0, 3, 2, 1).squeeze(3).transpose(1, 2).flatten(1),
    "parts": lambda x, i: torch.cat(
        [*x.split(2, 1)[::-1], *[u.unsqueeze(1) for u in x.unbind(1)], x[:, 1:4], x.select(1, -1).unsqueeze(1)], 1
    ),
    "stacks": lambda x, i: torch.stack([x.view(1, 2, 3), 2 * x.view(1, 2, 3)], 2),
    "masks": lambda x, i: x.masked_fill(MASK, -9.0) * (x != 0).float() * (~(x == 1)).float(),
    "clamps": lambda x, i: x.clamp(min=-0.1, max=0.7) + x.clamp(min=0.2) + x.clamp_min(0.3),
    "pad": lambda x, i: F.pad(x.view(1, 2, 3), (1, 2), value=7.0),
    "expand": lambda x, i: x.view(1, 6, 1).expand(1, 6, 3),
    "bmm": lambda x, i: x.view(1, 2, 3) @ x.view(1, 3, 2),
    "constants": lambda x, i: x * BIAS.exp().sum() + torch.zeros(1, 6),
}


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_operations(name):
    samples = {"x": torch.randn(12, 6), "i": torch.randint(0, 7, (12,), dtype=torch.int32)}
    assert record(encode(FUNCTIONS[name]), samples) is not None


def test_an_older_view_of_a_tensor_changed_in_place_means_no_tape():
    def stale(x, i):
        y = x * 2
        view = y.view(2, 3)
        F.relu(y, inplace=True)
        return view.view(1, 6) + 1

    assert record(encode(stale), {"x": torch.randn(3, 6), "i": torch.zeros(3, dtype=torch.int32)}) is None


@pytest.mark.parametrize("function", [lambda x, i: torch.erf(x), lambda x, i: x.clone().sub_(1), lambda x, i: x.cumsum(1)])
def test_an_unknown_operation_means_no_tape(function):
    assert record(encode(function), {"x": torch.randn(2, 6), "i": torch.zeros(2, dtype=torch.int32)}) is None


def test_a_model_that_looks_at_its_values_means_no_tape():
    samples = {"x": torch.tensor([[1.0] * 6, [-1.0] * 6]), "i": torch.zeros(2, dtype=torch.int32)}
    assert record(encode(lambda x, i: x if bool(samples["x"][0, 0] == x[0, 0]) else 2 * x), samples) is None


def test_tables_are_shared_not_copied():
    program = Program()
    assert program.of(TABLE).place == -1
    assert np.shares_memory(program.constants[0], TABLE.numpy())


def test_a_layer_wider_than_a_line_and_several_rows():
    """Sizes that are no multiple of what the loops take at once."""
    layers = [nn.Linear(n, m) for n, m in ((6, 21), (21, 17), (17, 3))]
    samples = {"x": torch.randn(5, 2, 6), "i": torch.zeros(5, dtype=torch.int32)}

    def three(x, i):
        for layer in layers:
            x = torch.relu(layer(x))
        return x.flatten(1)

    assert record(encode(three), samples, tolerance=1e-6) is not None


def test_layers_of_any_size_whose_input_is_partly_or_wholly_zero():
    """Zeros are passed over; outputs beside a whole line are written, and nothing behind them."""
    for n, width, rows in ((1, 1, 1), (17, 40, 15), (300, 300, 1), (321, 33, 2), (700, 5, 3)):
        layer = nn.Linear(width, n)
        x = torch.relu(torch.randn(6, rows, width))
        x[0] = 0
        samples = {"x": x, "i": torch.zeros(6, dtype=torch.int32)}
        assert record(encode(lambda x, i, layer=layer: layer(x).flatten(1)), samples, tolerance=2e-6) is not None


def test_a_layer_used_twice_is_packed_once():
    program, layer = Program(), nn.Linear(6, 5).requires_grad_(False)
    assert program.packed(layer.weight, layer.bias) is program.packed(layer.weight, layer.bias)
    assert program.packed(layer.weight, None) is not program.packed(layer.weight, layer.bias)


def test_the_sigmoid_is_numpys():
    x = torch.cat([torch.linspace(-120, 120, 4001), torch.tensor([0.0, 1e-30, -1e-30, 3e38, -3e38])])[None]
    tape = record(encode(lambda x, i: torch.sigmoid(x)), {"x": x, "i": torch.zeros(1, dtype=torch.int32)})
    assert tape is not None
    with np.errstate(over="ignore"):
        expected = 1 / (1 + np.exp(-x[0].double().numpy()))
    np.testing.assert_allclose(tape({"x": x.numpy(), "i": np.zeros(1, np.int32)})[0], expected, rtol=3e-7, atol=1e-37)


def test_a_row_that_no_table_has_is_an_error_and_no_foreign_memory():
    samples = {"x": torch.randn(2, 6), "i": torch.zeros(2, dtype=torch.int32)}
    tape = record(encode(lambda x, i: F.embedding(i, TABLE)), samples)
    for row in (9, -1):
        with pytest.raises(IndexError, match=f"no row {row}"):
            tape({"x": np.zeros((1, 6), np.float32), "i": np.array([row], np.int32)})


def test_columns_of_another_length_are_refused():
    tape = record(encode(lambda x, i: 2 * x), {"x": torch.randn(2, 6), "i": torch.zeros(2, dtype=torch.int32)})
    with pytest.raises(ValueError, match="column 0 must hold 6 numbers of 4 bytes, got 20 bytes"):
        tape({"x": np.zeros((1, 5), np.float32), "i": np.array([0], np.int32)})
