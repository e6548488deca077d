"""The other libraries' forward passes with weights that `ranker_forward` wrote. Runs in their environment, without prerank.

    python -m benchmarks.peers.worker given.npz answer.npz
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deepctr_torch.inputs import SparseFeat
from deepctr_torch.layers.interaction import CrossNet, CrossNetMix
from deepctr_torch.models import DCN, WDL, AutoInt, DCNMix, DeepFM
from torch import Tensor, nn
from torchrec.modules import crossnet

Weights = dict[str, Tensor]
HIDDEN = (24, 16)


def put(into: Tensor, value: Tensor) -> None:
    """Copy values of the same shape."""
    assert into.shape == value.shape, (into.shape, value.shape)
    into.copy_(value)


def layers(w: Weights, name: str) -> list[Tensor]:
    """`network.cross.layers.0.bias`, .1., ... for `network.cross.layers.*.bias`."""
    found = []
    while (one := name.replace("*", str(len(found)))) in w:
        found.append(w[one])
    return found


def whole(make: Callable[..., Any], w: Weights, **options: Any) -> Any:
    """A model of DeepCTR-Torch with our tables, wide weights (0 where we have none), MLP and last layer."""
    features = [SparseFeat(n.removeprefix("table."), t.shape[0], t.shape[1]) for n, t in w.items() if n.startswith("table.")]
    # task='regression': the logit itself
    model = make(features, features, task="regression", dnn_use_bn=True, **{"dnn_hidden_units": HIDDEN, **options}).double().eval()
    for f in features:
        put(model.embedding_dict[f.name].weight, w[f"table.{f.name}"])
        wide = model.linear_model.embedding_dict[f.name].weight
        put(wide, w.get(f"wide.{f.name}", torch.zeros_like(wide)))
    put(model.out.bias, w["wide.bias"] if "wide.bias" in w else w["network.output.bias"])
    put(model.dnn_linear.weight, w["network.output.weight"])
    for n in range(len(layers(w, "network.deep.layers.*.linear.bias"))):
        of = f"network.deep.layers.{n}."
        for ours, theirs in (("linear", model.dnn.linears[n]), ("norm", model.dnn.bn[n])):
            for name, p in theirs.state_dict().items():
                if p.is_floating_point():
                    put(p, w[f"{of}{ours}.{name}"])
    return model


def biases(w: Weights, prefix: str) -> list[Tensor]:
    """b_l of every cross layer, wherever its kind keeps it."""
    return next(found for kind in ("", "linear.", "u.") if (found := layers(w, f"{prefix}*.{kind}bias")))


def experts(w: Weights, prefix: str) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """U [K, n, r], C [K, r, r], V [K, r, n] of every layer of a mixture."""
    c = layers(w, f"{prefix}*.c")
    count = len(c[0])
    u = [torch.stack(one.chunk(count, dim=1)) for one in layers(w, f"{prefix}*.u.weight")]
    return u, c, [torch.stack(one.chunk(count)) for one in layers(w, f"{prefix}*.v.weight")]


def crossed(net: nn.Module, w: Weights, prefix: str) -> None:
    """DeepCTR-Torch's cross layers take our weights."""
    put(net.bias, torch.stack(biases(w, prefix)).unsqueeze(2))
    if isinstance(net, CrossNet):
        kernels = [k.unsqueeze(1) for k in layers(w, f"{prefix}*.weight")] or layers(w, f"{prefix}*.linear.weight")
        put(net.kernels, torch.stack(kernels))
        return
    u, c, v = experts(w, prefix)
    put(net.U_list, torch.stack(u))
    put(net.C_list, torch.stack(c))
    put(net.V_list, torch.stack(v).transpose(2, 3))
    for n, gate in enumerate(net.gating):
        put(gate.weight, w[f"{prefix}0.gate.weight"][n : n + 1])


def attending(model: nn.Module, w: Weights) -> None:
    """DeepCTR-Torch's interacting layers take our projections."""
    for n, layer in enumerate(model.int_layers):
        for k, theirs in enumerate((layer.W_Query, layer.W_key, layer.W_Value, layer.W_Res)):
            put(theirs, w[f"network.layers.{n}.project.{k}.weight"].t())


def deepctr(case: str, w: Weights) -> Tensor | None:
    """Logits [P, 1] of a whole model, or the cross layers' output; None for what it does not have."""
    if case in ("cross vector", "cross matrix"):
        net = CrossNet(w["x"].shape[1], 3, case.removeprefix("cross ")).double()
        crossed(net, w, "layers.")
        return net(w["x"])
    if case == "cross mixture":
        net = CrossNetMix(w["x"].shape[1], w["layers.0.c"].shape[1], len(w["layers.0.c"]), 3).double()
        crossed(net, w, "layers.")
        return net(w["x"])
    makes: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        "deepfm": (DeepFM, {}), "wide_deep": (WDL, {}), "dcn": (DCN, {"cross_num": 3}),
        "dcnv2": (DCN, {"cross_num": 3, "cross_parameterization": "matrix"}),
        "dcnv2 mixture": (DCNMix, {"cross_num": 3, "low_rank": 5, "num_experts": 4}),
        "autoint": (AutoInt, {"dnn_hidden_units": ()}), "autoint+": (AutoInt, {}),
    }  # fmt: skip
    if case not in makes:
        return None
    make, options = makes[case]
    model = whole(make, w, **options)
    if case.startswith("dcn"):
        crossed(model.crossnet, w, "network.cross.layers.")
    if case.startswith("autoint"):
        attending(model, w)
    return model(w["ids"].double())


def torchrec(case: str, w: Weights) -> Tensor | None:
    """The cross layers' output [P, n]; None for what it does not have."""
    if not case.startswith("cross"):
        return None
    width = w["x"].shape[1]
    if case in ("cross vector", "cross matrix"):
        net = (crossnet.VectorCrossNet if case == "cross vector" else crossnet.CrossNet)(width, 3).double()
        kernels = [k.unsqueeze(1) for k in layers(w, "layers.*.weight")] or layers(w, "layers.*.linear.weight")
        for into, value in zip(net.kernels, kernels, strict=True):
            put(into, value)
    else:
        count, rank, _ = w["layers.0.c"].shape
        net = crossnet.LowRankMixtureCrossNet(width, 3, count, rank, torch.tanh).double()
        for theirs, ours in zip((net.U_kernels, net.C_kernels, net.V_kernels), experts(w, "layers."), strict=True):
            for into, value in zip(theirs, ours, strict=True):
                put(into, value)
        for n, gate in enumerate(net.gates or ()):
            put(gate.weight, w["layers.0.gate.weight"][n : n + 1])
    for into, value in zip(net.bias, biases(w, "layers."), strict=True):
        put(into, value.unsqueeze(1))
    return net(w["x"])


@torch.no_grad()
def main(given: Path, answer: Path) -> None:
    with np.load(given) as file:
        arrays = dict(file)
    out = {f"version/{name}": np.array(metadata.version(name)) for name in ("deepctr-torch", "torchrec", "torch")}
    for case in dict.fromkeys(name.split("/")[0] for name in arrays):
        weights = {n.removeprefix(f"{case}/"): torch.from_numpy(a) for n, a in arrays.items() if n.startswith(f"{case}/")}
        for library, run in (("DeepCTR-Torch", deepctr), ("torchrec", torchrec)):
            found = run(case, weights)
            if found is not None:
                out[f"{library}/{case}"] = found.numpy()
    np.savez(answer, **out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
