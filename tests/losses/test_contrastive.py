"""CIR against a loop written from eq. 10."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from prerank.losses import ContrastiveTerm
from tests.conftest import small_batch, small_model


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a @ b / (a.norm() * b.norm())).item()


def expected(model: torch.nn.Module, batch, temperature: float, objective: int = 0) -> float:  # type: ignore[no-untyped-def]
    output = model(batch)
    group, users, items = output.groups[objective], output.user.groups[objective], output.item.groups[objective]
    heads = group.user_heads // group.levels
    total, n = 0.0, 0
    for b in range(batch.rows):
        for c in range(batch.item_index.shape[1]):
            if not batch.where[b, c] or batch.labels[b, c, objective] <= 0:
                continue
            last = users[batch.user_index[b], -heads:]
            if heads == items.shape[1]:
                sims = [cosine(last.flatten(), v.flatten()) for v in items]
            else:
                sims = [sum(max(cosine(h, k) for k in v) for h in last) / heads for v in items]
            weights = [math.exp(s / temperature) for s in sims]
            total -= math.log(weights[batch.item_index[b, c]] / sum(weights))
            n += 1
    return total / n


@pytest.mark.parametrize("name", ["inttower", "inttower-uneven-cosine", "dssm"])
@pytest.mark.parametrize("shape", [(24, 1), (5, 4)])
def test_cir_is_equation_10(name: str, shape: tuple[int, int]) -> None:
    model = small_model(name).eval()
    batch = small_batch(lists=shape[0], candidates=shape[1], items=8)
    with torch.no_grad():
        got = ContrastiveTerm(temperature=0.3)(batch, model(batch)).item()
        assert got == pytest.approx(expected(model, batch, 0.3), rel=1e-4)


def test_cir_of_the_second_objective() -> None:
    model = small_model("inttower", ("click", "buy")).eval()
    batch = small_batch(objectives=2)
    with torch.no_grad():
        got = ContrastiveTerm(temperature=0.3, objective=1)(batch, model(batch)).item()
        assert got == pytest.approx(expected(model, batch, 0.3, objective=1), rel=1e-4)


def test_without_positives_cir_is_zero() -> None:
    model, batch = small_model("inttower"), small_batch()
    assert ContrastiveTerm()(replace(batch, labels=batch.labels * 0), model(batch)).item() == 0.0


def test_cir_reaches_both_towers() -> None:
    model, batch = small_model("inttower"), small_batch()
    ContrastiveTerm()(batch, model(batch)).backward()
    for name in ("user.heads.2.weight", "item.heads.weight"):
        assert dict(model.named_parameters())[name].grad.abs().sum() > 0


def test_a_temperature_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"temperature: must be positive; got -1\.0"):
        ContrastiveTerm(temperature=-1.0)
