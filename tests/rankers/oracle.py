"""The parts of a ranker that several have, in numpy: fully connected layers in eval mode, the fields of a batch's pairs."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from prerank.batch import Batch
from prerank.rankers import Ranker


def weights(module: nn.Module) -> dict[str, np.ndarray]:
    """Parameters and buffers by name, in double precision."""
    return {name: p.detach().double().numpy() for name, p in module.state_dict().items()}


def linear(layer: nn.Module, x: np.ndarray) -> np.ndarray:
    w = weights(layer)
    return x @ w["weight"].T + w.get("bias", 0.0)


def mlp(module: nn.Module, x: np.ndarray) -> np.ndarray:
    """relu(BatchNorm(W x + b)) a layer, with the running statistics."""
    for layer in module.layers:
        x = linear(layer.linear, x)
        if isinstance(layer.norm, nn.BatchNorm1d):
            n = weights(layer.norm)
            x = (x - n["running_mean"]) / np.sqrt(n["running_var"] + 1e-5) * n["weight"] + n["bias"]
        x = np.maximum(x, 0)
    return x


def at_work(model: Ranker, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray | float]:
    """Logits [B, T], hidden [B, K] and the wide part [B, T] of click rows in eval mode, from weights that are not the first ones."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name or name.startswith(("wide.", "product.", "network.output")):
                p.normal_(0.0, 0.5)
        for _ in range(3):
            model.train()(batch)  # BatchNorm's statistics
        output = model.eval()(batch)
        pairs = batch.user, batch.item, batch.user_index, batch.item_index[:, 0]
        beside = [part(*pairs).double().numpy() for part in (model.wide, model.product) if part is not None]
    return output.logits[:, 0].double().numpy(), output.hidden[:, 0].double().numpy(), sum(beside) if beside else 0.0


def fields(model: Ranker, batch: Batch) -> np.ndarray:
    """[B, F, D], the user's fields first."""
    with torch.no_grad():
        sides = [model.embeddings("user", batch.user)[batch.user_index], model.embeddings("item", batch.item)[batch.item_index[:, 0]]]
    return torch.cat(sides, dim=1).double().numpy()
