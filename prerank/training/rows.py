"""Rows of a growing vocabulary that have a new id: everything that is held by row begins anew, no ghost of the old id stays.

    reset_rows(model, optimizer, average, {"item": vocabulary.changes().admitted})

A new id starts as the row 'unknown' (ours: what it was scored as until now, which training has brought to where an average id
is, or learns from ids without a row): in the weights, and in their averages. The optimiser's state is as before a first step, memories
(CTS, CMS) have seen nothing. A row that is used for the first time and one that is used again are treated alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from prerank.schema import UNKNOWN
from prerank.training.averaging import Average
from prerank.training.optimizer import Optimizer


@torch.no_grad()
def reset_rows(model: nn.Module, optimizer: Optimizer | None, average: Average | None, rows: Mapping[str, NDArray[Any]]) -> None:
    """Make these rows those of ids that nobody has met.

    optimizer, average   of the model; None: it has none
    rows                 {vocabulary: rows [n]}
    Raises ValueError for a model that holds sums over histories.
    """
    parameters = dict(model.named_parameters())
    module: Any
    for prefix, module in model.named_modules():
        held = module.held_rows() if hasattr(module, "held_rows") else {}
        for name, spans in held.items():
            whole = f"{prefix}.{name}" if prefix else name
            table = parameters[whole]
            for vocabulary, first, _ in spans:
                if not len(rows.get(vocabulary, ())):
                    continue
                at = torch.as_tensor(rows[vocabulary], device=table.device).long() + first
                unknown = torch.full_like(at, first + UNKNOWN)
                table[at] = table[unknown]
                if optimizer is not None:
                    optimizer.forget(whole, at)
                if average is not None:
                    average.copy_rows(whole, at, unknown)
        if hasattr(module, "forget_rows"):
            for vocabulary, new in rows.items():
                if len(new):
                    module.forget_rows(vocabulary, torch.as_tensor(new, device=next(module.parameters()).device).long())
