"""A model that went on learning, and what of it a delta carries."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from prerank.serving.change import Changes, Entities
from prerank.serving.export import item_columns
from tests.serving.world import World


def learned(model: nn.Module, seed: int, rows: int | None = None) -> nn.Module:
    """The model with other weights: everywhere, or `rows` of the big tables and all of the small ones."""
    made, random = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in made.named_parameters():
            step = torch.randn(p.shape, generator=random) * 0.1 * p.std(correction=0).clamp(min=0.05)
            if rows is not None and "table" in name:
                step[rows:] = 0
            p.add_(step)
    return made


def changes(before: nn.Module, after: nn.Module, data: World, items: np.ndarray) -> Changes:
    """Touched rows of tables, all other weights whole, and the vectors of some items by their rows in `data`."""
    old, new = before.state_dict(), after.state_dict()
    dense = {name: value for name, value in new.items() if "table" not in name}
    rows = {}
    for name in set(new) - set(dense):
        touched = (old[name] != new[name]).flatten(1).any(1).nonzero().squeeze(1)
        rows[name] = (touched, new[name][touched])
    return Changes(dense, rows, items=encoded(after, data, items))


def encoded(model: nn.Module, data: World, items: np.ndarray) -> Entities:
    """Vectors of some items, as the model encodes them."""
    columns = {name: column[items] for name, column in item_columns(data, slice(None)).items()}
    with torch.no_grad():
        said = model.encode("item", columns)
    ids = data.item_ids.gather(items)
    bias = torch.zeros(len(items), len(data.schema.objectives)) if said.bias is None else said.bias
    return Entities(ids.to_numpy() if ids.dtype.is_integer() else ids.to_list(), {}, said.flat().numpy(), bias.numpy())
