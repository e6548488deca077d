"""FE-Block against a plain reading of eq. 3-9, in both placements."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prerank import build
from prerank.config import ConfigError, Model
from prerank.layers import Embeddings
from tests.conftest import small_batch, small_model, small_schema


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
        ({"similarity": "l2"}, "similarity: must be cosine or dot; got 'l2'"),
        ({"head": 3}, "unknown option 'head'; did you mean 'heads'?"),
        ({"activation": "rlu"}, "activation: must be one of"),
    ],
)
def test_wrong_options_say_what_is_right(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        build.check_model(Model.model_validate({"name": "inttower", **options}), small_schema())


def test_two_towers_share_one_embedding_module() -> None:
    assert isinstance(small_model("inttower").embeddings, Embeddings)
    assert small_model("mf").embeddings is None
