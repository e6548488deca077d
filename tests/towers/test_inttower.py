"""FE-Block against a plain reading of eq. 3-9, in both placements."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prerank import build
from prerank.config import ConfigError, Model
from prerank.layers import Embeddings
from tests.conftest import SIZES, small_batch, small_model, small_schema


def oracle(
    weights: dict[str, np.ndarray], fields_u: np.ndarray, fields_v: np.ndarray, layers: int, heads: int, width: int, inputs: bool
) -> float:
    """One user's fields [F, D] and one item's [F', D] -> the logit, in numpy, from the paper's equations."""

    def gate(side: str, e: np.ndarray) -> np.ndarray:
        z = weights[f"{side}.gate.excite.weight"] @ e.mean(axis=1) + weights[f"{side}.gate.excite.bias"]
        k = np.exp(z) / np.exp(z).sum()
        return (e + k[:, None] * e).reshape(-1)

    def layer(side: str, i: int, x: np.ndarray) -> np.ndarray:
        p = f"{side}.mlp.layers.{i}."
        h = weights[p + "linear.weight"] @ x + weights[p + "linear.bias"]
        h = (h - weights[p + "norm.running_mean"]) / np.sqrt(weights[p + "norm.running_var"] + 1e-5)
        return np.maximum(h * weights[p + "norm.weight"] + weights[p + "norm.bias"], 0)

    def project(name: str, h: np.ndarray) -> np.ndarray:
        return (weights[f"{name}.weight"] @ h + weights[f"{name}.bias"]).reshape(heads, width)

    x = gate("user", fields_u)
    levels = [x]
    for i in range(layers - 1 if inputs else layers):
        levels.append(layer("user", i, levels[-1]))
    levels = levels[:layers] if inputs else levels[1:]
    v = gate("item", fields_v)
    for i in range(layers):
        v = layer("item", i, v)
    item = project("item.heads", v)
    score = weights["head.bias"][0]
    for i, h in enumerate(levels):
        score += sum(max(float(m @ n) for n in item) for m in project(f"user.heads.{i}", h))
    return score


@pytest.mark.parametrize("name", ["inttower", "inttower-code"])
def test_logits_are_equations_3_to_9(name: str) -> None:
    model, batch = small_model(name), small_batch()
    for _ in range(3):
        model(batch)  # give BatchNorm something to have seen
    model.eval()
    weights = {k: v.numpy().astype(np.float64) for k, v in model.state_dict().items()}
    with torch.no_grad():
        logits = model(batch).logits[:, 0, 0].numpy()
        users, items = (model.embeddings(s, c).numpy().astype(np.float64) for s, c in (("user", batch.user), ("item", batch.item)))
    for b in range(batch.rows):
        expected = oracle(weights, users[batch.user_index[b]], items[batch.item_index[b, 0]], 3, 2, 6, name == "inttower-code")
        assert logits[b] == pytest.approx(expected, abs=1e-5)


def test_the_released_codes_placement_builds_no_layer_that_nobody_reads() -> None:
    names = dict(small_model("inttower-code").named_parameters())
    assert "user.mlp.layers.1.linear.weight" in names
    assert "user.mlp.layers.2.linear.weight" not in names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 0}, "heads: must be at least 1; got 0"),
        ({"gate": "se"}, "gate: must be one of light_se, senet or null; got 'se'"),
        ({"placement": "middle"}, "placement: must be one of outputs, inputs; got 'middle'"),
        ({"interaction": "mlp"}, "interaction: must be one of fe, fc; got 'mlp'"),
        ({"levels": [0, 1]}, r"levels: must be different layers from 1 to 3; got \[0, 1\]"),
        ({"levels": [2, 2]}, r"levels: must be different layers from 1 to 3; got \[2, 2\]"),
        ({"levels": []}, r"levels: must be different layers from 1 to 3; got \[\]"),
        ({"similarity": "l2"}, "similarity: must be cosine or dot; got 'l2'"),
        ({"head": 3}, "unknown option 'head'; did you mean 'heads'?"),
        ({"activation": "rlu"}, "activation: must be one of"),
    ],
)
def test_wrong_options_say_what_is_right(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        build.check_model(Model.model_validate({"name": "inttower", **options}), small_schema())


def ablated(**options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    whole = {"name": "inttower", "hidden": [16, 12, 8], "heads": 2, "head_width": 6, "similarity": "dot", "temperature": "none"}
    return build.model(Model.model_validate({**whole, **options}), small_schema(), SIZES).eval()


def user_heads(model: torch.nn.Module, weights: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
    if weights is not None:
        model.load_state_dict({k: v for k, v in weights.items() if k in model.state_dict()}, strict=False)
    with torch.no_grad():
        return model.encode("user", small_batch().user).groups[0]


@pytest.mark.parametrize(("levels", "parts"), [([1], [0]), ([3], [2]), ([3, 1], [0, 2]), ([1, 2, 3], [0, 1, 2])])
@pytest.mark.parametrize("placement", ["outputs", "inputs"])
def test_levels_choose_among_the_heads_of_the_whole(levels: list[int], parts: list[int], placement: str) -> None:
    whole = ablated(placement=placement)
    chosen = ablated(placement=placement, levels=levels)
    weights = whole.state_dict()
    moved = {f"user.heads.{i}.{p}": weights[f"user.heads.{part}.{p}"] for i, part in enumerate(parts) for p in ("weight", "bias")}
    got = user_heads(chosen, {**weights, **moved})
    expected = user_heads(whole).view(-1, 3, 2, 6)[:, parts].flatten(1, 2)
    assert torch.allclose(got, expected, atol=1e-6)
    assert chosen.head.groups[0].levels == len(levels)


def test_layers_above_the_last_one_read_are_not_built() -> None:
    names = dict(ablated(levels=[1]).named_parameters())
    assert "user.mlp.layers.0.linear.weight" in names
    assert "user.mlp.layers.1.linear.weight" not in names
    assert "item.mlp.layers.2.linear.weight" in names


def test_fc_makes_the_heads_of_all_levels_at_once() -> None:
    model = ablated(interaction="fc")
    with torch.no_grad():
        x = model.user.gate(model.embeddings("user", small_batch().user)).flatten(1)
        levels = torch.cat(model.user.mlp.outputs(x), dim=1).numpy()
    layer = model.user.heads[0]
    expected = levels @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    assert np.allclose(user_heads(model).flatten(1).numpy(), expected, atol=1e-5)
    assert (model.head.groups[0].user_heads, model.head.groups[0].levels) == (2, 1)


def test_two_towers_share_one_embedding_module() -> None:
    assert isinstance(small_model("inttower").embeddings, Embeddings)
    assert small_model("mf").embeddings is None
