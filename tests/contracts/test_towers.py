"""DESIGN section 5: what every tower must hold, whatever its name."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from prerank import build
from prerank.batch import Batch
from prerank.config import TermConfig
from prerank.losses import LossTerm, Objective, logloss
from prerank.towers import TwoTower, maxsim
from tests.conftest import MODELS, TERMS_OF, remember, small_batch, small_model, small_schema

LISTS = {"rows": {"lists": 24, "candidates": 1}, "lists": {"lists": 6, "candidates": 7}}


def logits(model: TwoTower, batch: Batch) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(batch).logits


@pytest.mark.parametrize("shape", LISTS)
@pytest.mark.parametrize("objectives", [("like",), ("click", "buy")])
@pytest.mark.parametrize("name", MODELS)
def test_shapes(name: str, shape: str, objectives: tuple[str, ...]) -> None:
    if MODELS[name].get("width", 1) is None and len(objectives) > 1:
        with pytest.raises(ValueError, match="width: must be given for several objectives; there are 2"):
            small_model(name, objectives)
        return
    model, batch = small_model(name, objectives), small_batch(objectives=len(objectives), **LISTS[shape])
    output = model(batch)
    assert output.logits.shape == (*batch.item_index.shape, len(objectives))
    assert output.logits.dtype == torch.float32
    for group, user, item in zip(model.head.groups, output.user.groups, output.item.groups, strict=True):
        assert user.shape[1:] == (group.user_heads, group.width)
        assert item.shape[1:] == (group.item_heads, group.width)
    assert output.item.flat().shape == (15, sum(g.item_heads * g.width for g in model.head.groups))


def test_logits_are_the_sum_over_groups_that_architecture_promises(model: TwoTower) -> None:
    if not model.head.maxsim:
        pytest.skip("its head sees pairs; what it computes is in its own tests")
    batch = small_batch(lists=5, candidates=4)
    model.eval()
    with torch.no_grad():
        users, items = model.encode("user", batch.user), model.encode("item", batch.item)
        got = model(batch).logits[..., 0]
    for b in range(5):
        for c in range(4):
            u, i = batch.user_index[b], batch.item_index[b, c]
            expected = 0.0 if users.bias is None else users.bias[u, 0].item()
            expected += 0.0 if items.bias is None else items.bias[i, 0].item()
            for gu, gi in zip(users.groups, items.groups, strict=True):
                expected += sum(max(float(hu @ hi) for hi in gi[i]) for hu in gu[u])
            assert got[b, c].item() == pytest.approx(expected, abs=1e-5)


def test_changing_an_item_never_moves_a_user(model: TwoTower) -> None:
    batch = small_batch()
    other = replace(batch, item={k: v.roll(1, 0) for k, v in batch.item.items()})
    model.eval()
    with torch.no_grad():
        before, after = model(batch).user, model(other).user
    assert all(torch.equal(a, b) for a, b in zip(before.groups, after.groups, strict=True))
    assert not torch.equal(logits(model, batch), logits(model, other))


def test_permuting_candidates_permutes_logits(model: TwoTower) -> None:
    batch = small_batch(lists=6, candidates=7)
    order = torch.randperm(7)
    permuted = replace(batch, item_index=batch.item_index[:, order], labels=batch.labels[:, order], where=batch.where[:, order])
    torch.testing.assert_close(logits(model, permuted), logits(model, batch)[:, order], atol=1e-6, rtol=1e-6)


def test_padding_never_enters_a_tower_or_the_loss(model: TwoTower) -> None:
    batch = small_batch(lists=6, candidates=7)
    assert not batch.where.all()
    labels = torch.where(batch.where[..., None], batch.labels, 1 - batch.labels)
    elsewhere = replace(batch, item_index=torch.where(batch.where, batch.item_index, 3), labels=labels)
    objective = Objective([LossTerm("logloss", logloss)])
    model.eval()
    with torch.no_grad():
        one, two = model(batch), model(elsewhere)
        assert torch.equal(one.logits[batch.where], two.logits[batch.where])
        assert torch.equal(objective(batch, one)[0], objective(elsewhere, two)[0])


def test_permuting_a_batch_changes_nothing(model: TwoTower) -> None:
    batch = small_batch()
    order = torch.randperm(batch.rows)
    permuted = replace(batch, user_index=batch.user_index[order], item_index=batch.item_index[order], labels=batch.labels[order])
    objective = Objective([LossTerm("logloss", logloss)])
    model.eval()  # normalisation and dropout off
    losses = [objective(b, model(b))[0] for b in (batch, permuted)]
    gradients = [torch.autograd.grad(x, [p for p in model.parameters() if p.requires_grad], allow_unused=True) for x in losses]
    assert abs(losses[0] - losses[1]).item() <= 1e-6
    for a, b in zip(*gradients, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_each_distinct_row_encoded_once_or_every_time_is_the_same(model: TwoTower) -> None:
    batch = small_batch()
    plain = replace(
        batch,
        user={k: v[batch.user_index] for k, v in batch.user.items()},
        item={k: v[batch.item_index[:, 0]] for k, v in batch.item.items()},
        user_index=torch.arange(batch.rows),
        item_index=torch.arange(batch.rows).unsqueeze(1),
    )
    torch.testing.assert_close(logits(model, plain), logits(model, batch), atol=1e-6, rtol=1e-6)


def test_save_load_same_scores(model: TwoTower, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["model"]
    batch = small_batch()
    for _ in range(3):
        model.train()
        model(batch)  # BatchNorm statistics are part of the model
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    other = small_model(name, seed=99)
    assert not torch.equal(logits(other, batch), logits(model, batch))
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert torch.equal(logits(other, batch), logits(model, batch))


def test_every_parameter_learns(model: TwoTower, request: pytest.FixtureRequest) -> None:
    """A non-zero gradient within 20 batches; a bias before BatchNorm is exempt (BatchNorm subtracts it again)."""
    own = TERMS_OF.get(MODELS[request.node.callspec.params["model"]]["name"], [])
    objective = build.objective([TermConfig.model_validate(term) for term in ({"loss": "logloss"}, *own)], small_schema())
    total: dict[str, float] = dict.fromkeys(dict(model.named_parameters()), 0.0)
    for seed in range(20):
        model.train()
        model.zero_grad()
        batch = small_batch(seed)
        objective(batch, model(batch))[0].backward()
        for name, p in model.named_parameters():
            total[name] += 0.0 if p.grad is None else p.grad.abs().sum().item()
    silent = [n for n, t in total.items() if t == 0 and not n.endswith("linear.bias")]
    assert silent == []


def test_tables_that_are_updated_row_by_row_get_the_same_gradient(model: TwoTower, request: pytest.FixtureRequest) -> None:
    own = TERMS_OF.get(MODELS[request.node.callspec.params["model"]]["name"], [])
    objective = build.objective([TermConfig.model_validate(term) for term in ({"loss": "logloss"}, *own)], small_schema())
    batch, gradients = small_batch(), []
    model.eval()
    for sparse in (False, True):
        for module in model.modules():
            if hasattr(module, "sparse"):
                module.sparse = frozenset(name for name, _ in module.named_parameters()) if sparse else frozenset()
        model.zero_grad()
        objective(batch, model(batch))[0].backward()
        gradients.append({name: p.grad.to_dense() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-5)


def test_one_batch_can_be_overfitted(model: TwoTower, request: pytest.FixtureRequest) -> None:
    objective = Objective([LossTerm("logloss", logloss)])
    batch = small_batch(lists=16, users=16, items=15)
    batch = replace(batch, user_index=torch.arange(16), labels=(torch.arange(16) % 2).float().view(16, 1, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    # A bare cosine's logit cannot leave [-1, 1]: its loss cannot fall below log(1 + e^-1).
    floor = 0.3133 if "bare-cosine" in request.node.callspec.params["model"] else 0.0
    model.train()
    for _ in range(300):
        optimizer.zero_grad()
        loss, _ = objective(batch, model(batch))
        if loss.item() < floor + 0.05:
            return
        loss.backward()
        optimizer.step()
    raise AssertionError(f"300 steps brought the loss to {loss.item():.3f} only")


@pytest.mark.parametrize("name", MODELS)
def test_at_learning_rate_zero_a_label_never_reaches_its_own_logit(name: str) -> None:
    batch = small_batch()
    flipped = replace(batch, labels=1 - batch.labels)
    seen = []
    for b in (batch, flipped):
        model = small_model(name)
        remember(model, 1, batch=b)  # what is remembered holds the batch's labels, flipped with them
        model.train()
        objective, optimizer = Objective([LossTerm("logloss", logloss)]), torch.optim.Adam(model.parameters(), lr=0.0)
        rounds = []
        for _ in range(3):
            optimizer.zero_grad()
            output = model(b)
            objective(b, output)[0].backward()
            optimizer.step()
            rounds.append(output.logits.detach())
        seen.append(torch.stack(rounds))
    assert torch.equal(seen[0], seen[1])


CITED = {"mf": "2009", "dssm": "2013", "inttower": "2022", "ranktower": "2024", "dat": "2021", "hit": "2025", "ihm_dat": "2026",
         "rcg": "2026"}  # fmt: skip


@pytest.mark.parametrize(("module", "year"), CITED.items())
def test_docstrings_cite_their_source(module: str, year: str) -> None:
    doc = importlib.import_module(f"prerank.towers.{module}").__doc__ or ""
    assert year in doc
    assert "eq." in doc


def test_maxsim_against_its_definition() -> None:
    u, v = torch.randn(4, 3, 5, dtype=torch.float64), torch.randn(4, 6, 2, 5, dtype=torch.float64)
    expected = torch.einsum("bhk,bcjk->bchj", u, v).max(dim=3).values.sum(dim=2)
    torch.testing.assert_close(maxsim(u, v), expected)
