"""One optimiser for a model whose parts want different rates, decays and update rules.

Dense parameters go to fused Adam, AdamW or Adagrad, or to FTRL-Proximal, in groups by name. Embedding tables from
`sparse_from` rows on, and those of groups that are `rowwise`, go to row-wise Adagrad, which touches only the rows of the batch: a dense
Adam step on 1M x 32 costs 125 ms, a row-wise one 2 (docs/architecture.md). FTRL-Proximal keeps them: it is row-wise by nature.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from prerank.config import Optimizer as Settings
from prerank.config import ParameterGroup
from prerank.training.ftrl import Ftrl


class RowwiseAdagrad:
    """Adagrad with one accumulator a row, for sparse gradients:  a_r += mean(g_r^2);  w_r -= lr g_r / (sqrt(a_r) + eps).

    lr   of all, or of each by name
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], lr: float | Mapping[str, float], eps: float = 1e-8) -> None:
        self.parameters = dict(parameters)
        self.lr = dict(lr) if isinstance(lr, Mapping) else dict.fromkeys(parameters, lr)
        self.eps = eps
        self.sums = {name: torch.zeros(p.shape[0], device=p.device) for name, p in self.parameters.items()}

    @torch.no_grad()
    def step(self) -> None:
        """Update the rows that have a gradient."""
        for name, p in self.parameters.items():
            if p.grad is None:
                continue
            gradient = p.grad.coalesce()
            rows, values = gradient.indices()[0], gradient.values()
            total = self.sums[name]
            total.index_add_(0, rows, values.square().mean(dim=1))
            scale = self.lr[name] / (total.index_select(0, rows).sqrt() + self.eps)
            p.index_add_(0, rows, values * scale.unsqueeze(1), alpha=-1.0)


class Optimizer:
    """Adam (or AdamW, Adagrad) over dense parameters and row-wise Adagrad over big tables; or FTRL-Proximal over all.

    counts   {vocabulary: train counts}; needed for groups with `count_power`
    rows     rows (lists) of a batch, whose mean the loss is; FTRL-Proximal wants to know
    apart    parameters that are not the model's: the objective's own; they have the plain rate and no decay

    sparse   parameters whose gradients are of the rows of a batch
    """

    def __init__(self, model: nn.Module, settings: Settings, counts: Mapping[str, Tensor], rows: int = 1, *,
                 apart: Mapping[str, nn.Parameter] | None = None) -> None:  # fmt: skip
        tables = _row_counts(model, counts)
        rates = _rowwise_rates(tables, settings)
        module: Any
        for prefix, module in model.named_modules():
            if hasattr(module, "sparse"):
                module.sparse = frozenset(n for n in module.row_counts(counts) if (f"{prefix}.{n}" if prefix else n) in rates)
        self.names = {id(p): n for n, p in model.named_parameters()}
        self.row_decay: list[tuple[nn.Parameter, Tensor]] = []
        groups, sparse = [], {}
        self.sparse = [p for name, p in model.named_parameters() if name in rates]
        for name, p in model.named_parameters():
            if name in rates and settings.name != "ftrl":
                sparse[name] = p
                continue
            group = _group_of(name, settings.groups)
            l2 = settings.l2 if group is None or group.l2 is None else group.l2
            if group is not None and group.count_power is not None and name in tables:
                self.row_decay.append((p, _row_factors(tables[name], group.count_power).to(p.device) * l2))
                l2 = 0.0
            groups.append({"params": [p], "lr": settings.lr if group is None or group.lr is None else group.lr, "weight_decay": l2})
        for name, p in (apart or {}).items():
            self.names[id(p)] = f"objective.{name}"
            groups.append({"params": [p], "lr": settings.lr, "weight_decay": 0.0})
        self.dense = _dense(_merged(groups), settings, rows)
        self.rowwise = RowwiseAdagrad(sparse, rates) if sparse else None

    def zero_grad(self) -> None:
        self.dense.zero_grad(set_to_none=True)
        if self.rowwise:
            for p in self.rowwise.parameters.values():
                p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Add the count-weighted decays to the gradients, then update everything."""
        for p, factor in self.row_decay:
            if p.grad is not None:
                p.grad.addcmul_(p, factor)
        self.dense.step()
        if self.rowwise:
            self.rowwise.step()

    @torch.no_grad()
    def forget(self, name: str, rows: Tensor) -> None:
        """Rows [n] of a parameter begin anew: their state is as before the first step."""
        if self.rowwise and name in self.rowwise.sums:
            self.rowwise.sums[name][rows] = 0
            return
        p = next(p for g in self.dense.param_groups for p in g["params"] if self.names[id(p)] == name)
        if isinstance(self.dense, Ftrl):
            self.dense.forget(p, rows)
            return
        for held in self.dense.state.get(p, {}).values():
            if isinstance(held, Tensor) and held.dim():  # a step is of the whole parameter
                held[rows] = 0

    def gradients(self) -> Iterator[Tensor]:
        """Dense parameters that have a gradient, for clipping."""
        return (p for g in self.dense.param_groups for p in g["params"] if p.grad is not None and not p.grad.is_sparse)

    def tensors(self) -> dict[str, Tensor]:
        """The optimiser's whole state as named tensors, for a checkpoint."""
        state = {f"{self.names[id(p)]}/{key}": torch.as_tensor(v) for p, s in self.dense.state.items() for key, v in s.items()}
        if self.rowwise:
            state |= {f"{name}/rowwise": total for name, total in self.rowwise.sums.items()}
        return state

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`, into an optimiser over the same model."""
        for group in self.dense.param_groups:
            for p in group["params"]:
                prefix = f"{self.names[id(p)]}/"
                found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
                if found:
                    self.dense.state[p] = {k: v.to(p.device, copy=True) for k, v in found.items()}
        if self.rowwise:
            for name in self.rowwise.sums:
                self.rowwise.sums[name].copy_(tensors[f"{name}/rowwise"])


def _dense(groups: list[dict[str, object]], settings: Settings, rows: int) -> torch.optim.Optimizer:
    if settings.name == "ftrl":
        return Ftrl(groups, lr=settings.lr, beta=settings.beta, l1=settings.l1, rows=rows)
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "adagrad": torch.optim.Adagrad}
    options: dict[str, object] = {} if settings.name == "adagrad" else {"betas": settings.betas}
    return kinds[settings.name](groups, lr=settings.lr, fused=True, **options)


def _merged(groups: Iterable[dict[str, object]]) -> list[dict[str, object]]:
    """Groups of equal rate and decay become one: fused kernels like few, long lists."""
    merged: dict[tuple[object, object], dict[str, object]] = {}
    for g in groups:
        into = merged.setdefault((g["lr"], g["weight_decay"]), {**g, "params": []})
        into["params"].extend(g["params"])  # type: ignore[attr-defined]
    return list(merged.values())


def _group_of(name: str, groups: Iterable[ParameterGroup]) -> ParameterGroup | None:
    return next((g for g in groups if fnmatchcase(name, g.match)), None)


def _rowwise_rates(tables: Mapping[str, Tensor], settings: Settings) -> dict[str, float]:
    """{table: rate} of those that are updated row by row: by their group's word, or by their size."""
    found = {}
    for name, rows in tables.items():
        group = _group_of(name, settings.groups)
        if group is not None and group.rowwise and group.lr is not None:
            found[name] = group.lr
        elif len(rows) >= settings.sparse_from:
            found[name] = settings.sparse_lr
    return found


def _row_counts(model: nn.Module, counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """{parameter name: train count of each row} for every embedding table of the model."""
    found: dict[str, Tensor] = {}
    for prefix, module in model.named_modules():
        if hasattr(module, "row_counts"):
            found |= {f"{prefix}.{name}" if prefix else name: rows for name, rows in module.row_counts(counts).items()}
    return found


def _row_factors(counts: Tensor, power: float) -> Tensor:
    """(count / mean count of the rows that occur) ** power  # [rows, 1]; rows that never occur get 0."""
    seen = counts > 0
    mean = counts[seen].mean() if seen.any() else counts.new_ones(())
    return torch.where(seen, (counts / mean) ** power, counts.new_zeros(())).unsqueeze(1)
