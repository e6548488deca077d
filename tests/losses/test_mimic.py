"""DAT's mimic and HIT's generation loss against numpy, written from their formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from prerank.batch import Batch, Group, Output, Representation
from prerank.losses import GeneratorTerm, MimicTerm
from tests.conftest import small_batch, small_model

torch.manual_seed(0)
GROUPS = (Group(2, 1, 3, objective=0, cosine=True), Group(1, 2, 2, objective=1), Group(1, 1, 4, objective=0))  # the last is an id head


def output(users: int = 10, items: int = 15, guess: bool = True) -> Output:
    """Random representations: two guessed groups and an id head, which is not guessed."""
    u = tuple(torch.randn(users, g.user_heads, g.width, requires_grad=True) for g in GROUPS)
    v = tuple(torch.randn(items, g.item_heads, g.width, requires_grad=True) for g in GROUPS)
    a_u = torch.randn(users, 3 + 4, requires_grad=True) if guess else None
    a_v = torch.randn(items, 6 + 2, requires_grad=True) if guess else None
    return Output(torch.zeros(24, 1, 2), Representation(u, guess=a_u), Representation(v, guess=a_v), GROUPS)


def expected(batch: Batch, out: Output, objective: int, distance, stages: tuple[int, ...] | None = None) -> list[float]:  # type: ignore[no-untyped-def]
    """Mean distance over positives, of a_u from v and of a_v from u."""
    assert out.user is not None
    assert out.item is not None
    assert out.user.guess is not None
    assert out.item.guess is not None
    u, v = (r.groups[objective].detach().numpy() for r in (out.user, out.item))
    if GROUPS[objective].cosine:
        u, v = (x / np.sqrt((x**2).sum(2, keepdims=True)) for x in (u, v))
    a_u, a_v = out.user.guess.detach().numpy(), out.item.guess.detach().numpy()
    a_u, a_v = (a_u[:, :3], a_v[:, :6]) if objective == 0 else (a_u[:, 3:], a_v[:, 6:])
    of_user, of_item = [], []
    for b in range(batch.rows):
        for c in range(batch.item_index.shape[1]):
            shown = stages is None or batch.stage is None or int(batch.stage[b, c]) in stages
            if batch.where[b, c] and shown and batch.labels[b, c, objective] > 0:
                i, j = int(batch.user_index[b]), int(batch.item_index[b, c])
                of_user.append(distance(a_u[i], v[j].ravel()))
                of_item.append(distance(a_v[j], u[i].ravel()))
    return [float(np.mean(of_user)), float(np.mean(of_item))]


def squared(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a - b) ** 2).sum())


@pytest.mark.parametrize("objective", [0, 1])
@pytest.mark.parametrize("shape", [(24, 1), (6, 4)])
def test_mimic_is_its_formula(shape: tuple[int, int], objective: int) -> None:
    batch, out = small_batch(lists=shape[0], candidates=shape[1], objectives=2), output()
    user, item = expected(batch, out, objective, squared)
    assert MimicTerm(objective=objective)(batch, out).item() == pytest.approx(0.5 * user + 0.5 * item, rel=1e-5)
    assert MimicTerm(objective=objective, user=2.0, item=0.0)(batch, out).item() == pytest.approx(2 * user, rel=1e-5)


@pytest.mark.parametrize("objective", [0, 1])
def test_generation_loss_is_its_formula(objective: int) -> None:
    batch, out = small_batch(lists=6, candidates=4, objectives=2), output()

    def angle(a: np.ndarray, b: np.ndarray) -> float:
        return float(1 - a @ b / np.sqrt((a @ a) * (b @ b)))

    user, item = expected(batch, out, objective, angle)
    assert GeneratorTerm(objective=objective)(batch, out).item() == pytest.approx(user + item, rel=1e-5)
    assert GeneratorTerm(objective=objective, user=0.0, item=3.0)(batch, out).item() == pytest.approx(3 * item, rel=1e-5)


def test_only_its_stages_are_seen() -> None:
    batch = small_batch(lists=6, candidates=4, objectives=2)
    batch, out = replace(batch, stage=torch.randint(0, 2, (6, 4), dtype=torch.int8)), output()
    user, item = expected(batch, out, 0, squared, stages=(1,))
    assert MimicTerm(stages=(1,))(batch, out).item() == pytest.approx(0.5 * (user + item), rel=1e-5)


@pytest.mark.parametrize("term", [MimicTerm, GeneratorTerm])
def test_the_other_side_does_not_feel_it(term: type[MimicTerm | GeneratorTerm]) -> None:
    out = output()
    term()(small_batch(objectives=2), out).backward()
    assert out.user is not None
    assert out.item is not None
    assert all(g.grad is None for g in (*out.user.groups, *out.item.groups))
    assert all(r.guess is not None and r.guess.grad is not None and r.guess.grad[:, :3].abs().sum() > 0 for r in (out.user, out.item))


def test_without_positives_it_is_zero() -> None:
    batch = small_batch(objectives=2)
    assert MimicTerm()(replace(batch, labels=batch.labels * 0), output()).item() == 0.0


def test_a_model_without_guesses_is_refused() -> None:
    with pytest.raises(ValueError, match="the model's user tower must guess the other side's vectors, as dat does; it does not"):
        MimicTerm()(small_batch(objectives=2), output(guess=False))
    with pytest.raises(ValueError, match=r"item: must be at least 0; got -1\.0"):
        MimicTerm(item=-1.0)


@pytest.mark.parametrize("name", ["dat", "dat-dot-id-head"])
def test_trained_on_it_alone_guesses_come_true(name: str) -> None:
    """Every id has one positive, so that a_u may become v: it does, although u and v move with what their towers read."""
    model, batch = small_model(name).eval(), small_batch(lists=10, users=10, items=10)
    batch = replace(batch, user_index=torch.arange(10), item_index=torch.arange(10)[:, None], labels=torch.ones(10, 1, 1))
    optimizer = torch.optim.Adam([p for n, p in model.named_parameters() if n.endswith("ids.table")], lr=0.02)
    first = MimicTerm()(batch, model(batch)).item()
    for _ in range(300):
        optimizer.zero_grad()
        loss = MimicTerm()(batch, model(batch))
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * first
