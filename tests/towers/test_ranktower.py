"""RankTower against a plain reading of eq. 3-13, and what of it may be stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from prerank import build
from prerank.config import ConfigError, Model
from prerank.layers import Embeddings
from prerank.towers import CrossMaxSim
from prerank.towers.ranktower import GatedTower
from tests.conftest import SIZES, small_batch, small_model, small_schema

Weights = dict[str, np.ndarray]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def silu(x: np.ndarray) -> np.ndarray:
    return x * sigmoid(x)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def tower(w: Weights, fields: np.ndarray, objective: int, objectives: int, width: int) -> np.ndarray:
    """Eq. 3-4: fields [F, D] -> E [H, K] of an objective."""
    x = h = fields.reshape(-1)
    for i in range(2):
        h = w[f"mlp.layers.{i}.linear.weight"] @ h + w[f"mlp.layers.{i}.linear.bias"]
        p = f"mlp.layers.{i}.norm."
        h = (h - w[p + "running_mean"]) / np.sqrt(w[p + "running_var"] + 1e-5) * w[p + "weight"] + w[p + "bias"]
        h = np.maximum(h, 0)
    heads = w["heads.weight"] @ h + w["heads.bias"]
    gate = w["gate.2.weight"] @ np.maximum(w["gate.0.weight"] @ x + w["gate.0.bias"], 0) + w["gate.2.bias"]
    return (heads * sigmoid(gate)).reshape(objectives, -1, width)[objective]


def gau(w: Weights, x_q: np.ndarray, x_kv: np.ndarray) -> np.ndarray:
    """Eq. 7-12: [P, d], [Q, d] -> [P, d]."""
    w_q, w_u = np.split(w["asking.weight"], 2)
    w_k, w_v = np.split(w["telling.weight"], 2)
    q, k, v, u = silu(x_q @ w_q.T), silu(x_kv @ w_k.T), silu(x_kv @ w_v.T), sigmoid(x_q @ w_u.T)
    a = softmax(q @ k.T / np.sqrt(q.shape[1]))
    return (u * (a @ v)) @ w["out.weight"].T


def layer_norm(w: Weights, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5) * w["norm.weight"] + w["norm.bias"]


def score(w: Weights, e_u: np.ndarray, e_i: np.ndarray, objective: int) -> float:
    """Eq. 5-6 and 13, and the bias: [P, K], [Q, K] -> the logit."""
    user, item = (part(w, f"head.attention.{objective}.of_{side}.") for side in ("user", "item"))
    told_u = layer_norm(user, e_u + gau(user, e_u, e_i))
    told_i = layer_norm(item, e_i + gau(item, e_i, e_u))
    s = sum(max(float(a @ b) / np.linalg.norm(a) / np.linalg.norm(b) for b in told_i) for a in told_u)
    t = 1 / np.exp(w["head.log_scale"][objective])
    return s / t + w["head.bias"][objective]


def part(w: Weights, prefix: str) -> Weights:
    return {k.removeprefix(prefix): v for k, v in w.items() if k.startswith(prefix)}


def trained_like(name: str, objectives: tuple[str, ...]) -> Any:
    """A model none of whose parameters is 0 or 1 only because it is new."""
    model = small_model(name, objectives)
    for _ in range(3):
        model(small_batch(objectives=len(objectives)))  # BatchNorm's statistics
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return model.eval()


@pytest.mark.parametrize("objectives", [("like",), ("click", "buy")])
@pytest.mark.parametrize("shape", [{"lists": 24, "candidates": 1}, {"lists": 5, "candidates": 6}])
def test_logits_are_equations_3_to_13(objectives: tuple[str, ...], shape: dict[str, int]) -> None:
    model, batch = trained_like("ranktower", objectives), small_batch(objectives=len(objectives), **shape)
    w = {k: v.numpy().astype(np.float64) for k, v in model.state_dict().items()}
    with torch.no_grad():
        logits = model(batch).logits.numpy()
        users, items = (model.embeddings(s, c).numpy().astype(np.float64) for s, c in (("user", batch.user), ("item", batch.item)))
    for (b, c), item in np.ndenumerate(batch.item_index.numpy()):
        for t in range(len(objectives)):
            e_u = tower(part(w, "user."), users[batch.user_index[b]], t, len(objectives), 6)  # [3, 6]
            e_i = tower(part(w, "item."), items[item], t, len(objectives), 6)  # [2, 6]
            assert logits[b, c, t] == pytest.approx(score(w, e_u, e_i, t), abs=1e-5)


def test_an_id_head_adds_its_product_and_biases() -> None:
    model, batch = trained_like("ranktower-id-head", ("like",)), small_batch()
    with torch.no_grad():
        both = model(batch).logits[:, 0, 0]
        (p, b), (q, c) = (side.ids.ids(ids) for side, ids in ((model.user, batch.user["user_id"]), (model.item, batch.item["item_id"])))
        u, i = batch.user_index, batch.item_index[:, 0]
        model.user, model.item = model.user.inner, model.item.inner
        model.head.groups = model.head.groups[:-1]
        alone = model(batch).logits[:, 0, 0]
    expected = alone + (p[u] * q[i]).sum(dim=1) + b[u, 0] + c[i, 0]
    torch.testing.assert_close(both, expected, atol=1e-5, rtol=1e-5)
    assert (both - alone).abs().max() > 0.01


def test_the_gate_sends_no_gradient_into_the_embeddings() -> None:
    tower = GatedTower(2, 3, [4], 2, 5)
    with torch.no_grad():
        tower.heads.weight.zero_()  # heads are then their bias, whatever the fields: only the gate reads them
    fields = torch.randn(7, 2, 3, requires_grad=True)
    before, after = (tower.eval()(f, torch.zeros(7)).groups[0] for f in (fields, fields + 1))
    assert not torch.equal(before, after)
    before.sum().backward()
    assert fields.grad is not None
    assert not fields.grad.any()
    assert all(p.grad is not None and p.grad.any() for p in tower.gate.parameters())


def test_what_is_stored_is_five_groups_an_objective() -> None:
    model = small_model("ranktower", ("click", "buy"))
    head = model.head
    assert isinstance(head, CrossMaxSim)
    assert not head.maxsim
    assert [(g.user_heads, g.item_heads, g.width, g.objective) for g in head.groups] == [(3, 2, 6, 0)] * 5 + [(3, 2, 6, 1)] * 5
    assert small_model("inttower").head.maxsim


def test_heads_that_are_zero_stay_finite() -> None:
    model = small_model("ranktower").eval()
    with torch.no_grad():
        for side in (model.user, model.item):
            side.heads.weight.zero_()
            side.heads.bias.zero_()
    output = model(small_batch())
    output.logits.sum().backward()
    assert torch.isfinite(output.logits).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_it_learns_under_bf16_autocast() -> None:
    model, batch = small_model("ranktower-id-head"), small_batch(lists=6, candidates=7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(batch).logits
    logits.square().mean().backward()
    assert logits.dtype == torch.float32
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = model(batch).logits
    with torch.no_grad():
        exact = model(batch).logits
    torch.testing.assert_close(coarse, exact, atol=0.15, rtol=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 0}, "heads: must be at least 1; got 0"),
        ({"item_heads": 0}, "item_heads: must be at least 1; got 0"),
        ({"head_width": 1}, "head_width: must be at least 2; got 1"),
        ({"reduction": 0}, "reduction: must be at least 1; got 0"),
        ({"hidden": []}, "hidden: must name the width of at least one layer; got none"),
        ({"head": 3}, "unknown option 'head'; did you mean 'heads'?"),
    ],
)
def test_wrong_options_say_what_is_right(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build.model(Model.model_validate({"name": "ranktower", **options}), small_schema(), SIZES)
    assert message in str(caught.value)


def test_a_small_gate_has_at_least_one_unit() -> None:
    assert GatedTower(1, 2, [3], 1, 2, reduction=100).gate[0].out_features == 1


def test_linear_std_and_activation_reach_the_layers() -> None:
    options = {"name": "ranktower", "linear_std": 1e-4, "activation": "tanh", "norm": False, "dropout": 0.2}
    model = build.model(Model.model_validate(options), small_schema(), SIZES)
    assert isinstance(model.embeddings, Embeddings)
    assert model.user.mlp.layers[0].linear.weight.std() < 2e-4
    assert isinstance(model.item.mlp.layers[0].activation, torch.nn.Tanh)
