"""Cutting a trained COLD or FSCD down to fewer fields: what its gate says of each, and the weights that the smaller model inherits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prerank.layers.selection import ConcreteGate, SEGate, cut_linear
from prerank.rankers.ranker import Ranker
from prerank.rankers.selection import SelectingNetwork


@dataclass
class Observed:
    """Means over the pairs seen so far.

    rows      pairs
    gates     [m] the gate
    fields    [m, D] what the gate weighs
    weighed   [m, D] what comes of it
    """

    rows: int
    gates: Tensor
    fields: Tensor
    weighed: Tensor


def gated(model: nn.Module) -> SelectingNetwork:
    """The network of a ranker that chooses among its fields. Raises ValueError for another model, or one without a gate."""
    network = model.network if isinstance(model, Ranker) else None
    if not isinstance(network, SelectingNetwork) or network.gate is None:
        raise ValueError("model: must weigh its fields by a gate, as cold does, and fscd without keep; this one does not")
    return network


@contextmanager
def observing(model: nn.Module) -> Iterator[Observed]:
    """While it is open, every pair that the model scores in eval mode is counted in. Raises ValueError as `gated` does."""
    network = gated(model)
    m = len(network.names)
    seen = Observed(0, torch.zeros(m), torch.zeros(m, 1), torch.zeros(m, 1))

    def count(module: Any, args: tuple[Tensor, ...]) -> None:
        x = network.select(args[0])  # [P, m, D]
        gates = network.gate(x).expand(x.shape[:2])  # type: ignore[misc]
        new = seen.rows + len(x)
        for name, value in (("gates", gates), ("fields", x), ("weighed", x * gates.unsqueeze(2))):
            before = getattr(seen, name).to(x.device)
            setattr(seen, name, before + (value.double().sum(dim=0) - len(x) * before) / new)
        seen.rows = new

    handle = network.register_forward_pre_hook(count)
    try:
        yield seen
    finally:
        handle.remove()


@torch.no_grad()
def inherit(small: Ranker, whole: Ranker, seen: Observed) -> None:
    """Give `small`, built with `keep`, the weights of `whole`; what the fields that are gone said on average goes into biases.

    So the small model says what the large one did, were what the lost fields say (gate and all) the same for every pair.
    """
    old, new = gated(whole), small.network
    assert isinstance(new, SelectingNetwork)
    kept = torch.tensor([old.names.index(name) for name in new.names])
    first = "network.deep.layers.0.linear."
    theirs = whole.state_dict()
    for name, value in small.state_dict().items():
        if not name.startswith(("embeddings.tables.", "network.gate.", first)):
            value.copy_(theirs[name])
    assert small.embeddings is not None
    assert whole.embeddings is not None
    for table, spans in small.embeddings.spans.items():
        at = {vocabulary: begin for vocabulary, begin, _ in whole.embeddings.spans[table]}
        for vocabulary, begin, rows in spans:
            source = whole.embeddings.tables[table][at[vocabulary] : at[vocabulary] + rows]
            small.embeddings.tables[table][begin : begin + rows] = source
    fields, weighed = seen.fields.float().cpu(), seen.weighed.float().cpu()
    scale = old.gate.probabilities() if isinstance(old.gate, ConcreteGate) else None
    if isinstance(new.gate, SEGate) and isinstance(old.gate, SEGate):
        new.gate.cut(old.gate, kept, fields)
    cut_linear(_first_layer(new), _first_layer(old), kept, weighed, scale)


def _first_layer(network: SelectingNetwork) -> nn.Linear:
    layer: Any = network.deep.layers[0]
    linear: nn.Linear = layer.linear
    return linear
