"""Any loss with any backbone, by YAML alone: lists with stages, a teacher's scores, bids and padding.

`make test` runs every loss with one backbone and every backbone with one loss; `make test-all` the whole grid.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from prerank import build
from prerank.batch import Batch, Output, Stage
from prerank.config import Model, TermConfig
from prerank.losses import LOSSES, TERMS, Objective
from tests.conftest import MODELS, SIZES, remember, small_batch, small_schema

LABELS = ("click", "buy")
COUNTS = {name: np.arange(n) for name, n in SIZES.items()}
OF_VECTORS = {"cir", "in_batch_softmax", "mimic", "category_alignment", "generator", "complexity", "hard_negatives", "hard_mimic"}
TERMS_OF_LISTS = {
    **{name: f"{{loss: {name}}}" for name in LOSSES},
    **{name: f"{{loss: {name}}}" for name in TERMS if name not in OF_VECTORS | {"jrc"}},
    "jrc": "{loss: jrc, energy: buy}",
    "distillation-logloss": "{loss: distillation, kind: logloss}",
    "distillation-weighted": "{loss: distillation, kind: weighted_logloss}",
    "distillation-pairwise": "{loss: distillation, kind: pairwise}",
    "am_rankmax-power": "{loss: am_rankmax, alpha: 3, beta: 0.5, power: 2.0}",
    "dftopk-top": "{loss: dftopk, top: 2}",
    "lcron-teacher": "{loss: lcron, passes: 2, then: 0.5}",
    "copr-label": "{loss: copr, by: label}",
    "arf-count": "{loss: arf, passes: 2, top: 2}",
    "softsort-batch": "{loss: softsort, lists: batch}",
}
HYBRID = """
- {loss: distillation, weight: 0.3, stages: [impression]}
- {loss: softsort, weight: 1.0, stages: [impression, ranking]}
- {loss: am_rankmax, weight: 0.5, alpha: 3.0, stages: [impression, ranking, random]}
"""
RANKERS = {"fm": {"name": "fm"}, "dcn-v2": {"name": "dcnv2", "hidden": [12]}}
BACKBONES: dict[str, dict[str, Any]] = {
    name: MODELS[name] for name in ("dssm", "inttower", "ranktower", "mf", "history-mf", "dat", "ihm-dat", "rcg", "hit", "dssm-dot-id-head")
} | RANKERS


def pairs() -> list[Any]:
    found = []
    for loss in (*TERMS_OF_LISTS, "hybrid"):
        for backbone in BACKBONES:
            marks = () if loss == "softsort" or backbone == "dssm" else pytest.mark.slow
            found.append(pytest.param(loss, backbone, id=f"{loss}-{backbone}", marks=marks))
    return found


grid = pytest.mark.parametrize(("loss", "backbone"), pairs())


@functools.cache
def model(backbone: str) -> torch.nn.Module:
    torch.manual_seed(0)
    made = build.model(Model.model_validate(BACKBONES[backbone]), small_schema(LABELS), SIZES)
    if hasattr(made, "remember"):
        remember(made, len(LABELS))
    return made.eval()


def objective(loss: str) -> Objective:
    raw = yaml.safe_load(HYBRID if loss == "hybrid" else f"[{TERMS_OF_LISTS[loss]}]")
    return build.objective([TermConfig.model_validate(term) for term in raw], small_schema(LABELS), COUNTS)


def lists() -> Batch:
    """Six lists of up to nine; impressions are positive or not, what was not shown is negative; no item twice in a list."""
    g = torch.Generator().manual_seed(11)
    batch = small_batch(lists=6, candidates=9, objectives=2, seed=4)
    item = torch.stack([torch.randperm(15, generator=g)[:9] for _ in range(6)])
    stage = torch.tensor([Stage.IMPRESSION] * 4 + [Stage.RANKING] * 3 + [Stage.RANDOM] * 2, dtype=torch.int8).repeat(6, 1)
    labels = (torch.rand(6, 9, 2, generator=g) < 0.5).float()
    labels[:, 0], labels[:, 1] = 1.0, 0.0
    shown = stage == Stage.IMPRESSION
    labels = labels * shown.unsqueeze(2)
    where = torch.rand(6, 9, generator=g) < 0.8
    where[:, :2], where[:, 4] = True, True
    scores = torch.rand(6, 9, generator=g)
    scores[:, 4:] = torch.nan
    bid = 0.1 + torch.rand(6, 9, generator=g)
    return replace(batch, item_index=item * where, stage=stage, labels=labels, where=where, teacher=scores, bid=bid)


def slope(loss: str, output: Output, batch: Batch) -> torch.Tensor:
    """What the loss says to each logit.  # [B, C, T]"""
    z = output.logits.detach().double().requires_grad_()
    value, _ = objective(loss)(batch, Output(z))
    (found,) = torch.autograd.grad(value, z)
    return found


@grid
def test_it_is_finite_and_teaches_the_model(loss: str, backbone: str) -> None:
    net, batch = model(backbone), lists()
    net.zero_grad()
    value, parts = objective(loss)(batch, net(batch))
    value.backward()
    assert value.item() > 0
    assert all(part.isfinite() for part in parts.values())
    gradients = {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
    assert all(g.isfinite().all() for g in gradients.values())
    sides = ("user", "item") if net.__class__.__name__ == "TwoTower" else ("",)
    for side in sides:
        assert any(n.startswith(side) and g.abs().sum() > 0 for n, g in gradients.items())


@grid
def test_padding_changes_nothing(loss: str, backbone: str) -> None:
    net, batch, wide = model(backbone), lists(), lists()
    more = {name: torch.cat([x, torch.ones(6, 3, *x.shape[2:]).to(x)], dim=1) for name in ("labels", "stage", "teacher", "bid")
            if (x := getattr(wide, name)) is not None}  # fmt: skip
    nowhere, anything = torch.zeros(6, 3, dtype=torch.bool), torch.zeros(6, 3, dtype=torch.long)
    wide = replace(wide, where=torch.cat([batch.where, nowhere], 1), item_index=torch.cat([batch.item_index, anything], 1), **more)
    torch.testing.assert_close(objective(loss)(wide, net(wide))[0], objective(loss)(batch, net(batch))[0], rtol=1e-4, atol=1e-5)
    hidden = replace(batch, labels=torch.where(batch.where.unsqueeze(2), batch.labels, 5.0),
                     teacher=torch.where(batch.where, batch.teacher, 99.0))  # fmt: skip
    torch.testing.assert_close(objective(loss)(hidden, net(hidden))[0], objective(loss)(batch, net(batch))[0], rtol=1e-4, atol=1e-5)


@grid
def test_the_order_of_candidates_changes_nothing(loss: str, backbone: str) -> None:
    net, batch = model(backbone), lists()
    order = torch.tensor([8, 2, 0, 7, 5, 1, 3, 6, 4])
    names = ("item_index", "labels", "where", "stage", "teacher", "bid")
    turned = replace(batch, **{name: getattr(batch, name)[:, order] for name in names})
    torch.testing.assert_close(objective(loss)(turned, net(turned))[0], objective(loss)(batch, net(batch))[0], rtol=1e-4, atol=1e-5)


@grid
def test_stages_that_a_term_does_not_see_change_nothing(loss: str, backbone: str) -> None:
    """Nor are they told anything: the gradient to their logits is 0."""
    net, batch = model(backbone), lists()
    seen = [Stage.IMPRESSION, Stage.RANKING]
    raw = yaml.safe_load(HYBRID if loss == "hybrid" else f"[{TERMS_OF_LISTS[loss]}]")
    terms = [TermConfig.model_validate({**term, "stages": ["impression", "ranking"]}) for term in raw]
    made, output = build.objective(terms, small_schema(LABELS), COUNTS), net(batch)
    z = output.logits.detach().requires_grad_()
    value, _ = made(batch, Output(z))
    (gradient,) = torch.autograd.grad(value, z)
    unseen = ~(batch.where & torch.isin(batch.stage, torch.tensor(seen)))
    assert not gradient[unseen].any()
    moved = torch.where(unseen.unsqueeze(2), -7.0, z.detach())
    torch.testing.assert_close(made(batch, Output(moved))[0], value.detach())


@pytest.mark.parametrize("loss", [*TERMS_OF_LISTS, "hybrid"])
def test_logits_of_padding_get_no_gradient(loss: str) -> None:
    batch = lists()
    found = slope(loss, model("dssm")(batch), batch)
    assert not found[~batch.where].any()
    assert found[batch.where].any()


def test_the_hybrid_objective_is_three_terms_itemised() -> None:
    batch = lists()
    output = model("ranktower")(batch)
    value, parts = objective("hybrid")(batch, output)
    assert list(parts) == ["distillation", "softsort", "am_rankmax"]
    weights = (0.3, 1.0, 0.5)
    assert value.item() == pytest.approx(sum(w * p.item() for w, p in zip(weights, parts.values(), strict=True)), rel=1e-6)
