"""What every backbone must hold with every subset of CAS, CTS and CMS: tests/contracts/test_towers.py's promises, memories warm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from prerank import build
from prerank.batch import Batch
from prerank.config import TermConfig
from prerank.losses import LossTerm, Objective, logloss
from prerank.serving.folding import folded
from prerank.serving.tape import record
from prerank.towers import TwoTower
from tests.conftest import MODELS, TERMS_OF, small_batch, small_schema
from tests.synergy.world import BACKBONES, SUBSETS, WHOLE, hidden_of, settings, synergised, timed, warm

QUICK = {(b, WHOLE) for b in BACKBONES} | {("dssm", s) for s in SUBSETS} | {("rcg", "cts"), ("inttower", "cms"), ("dat", "cas+cts")}
GRID = [pytest.param(b, s, id=f"{b}-{s}", marks=() if (b, s) in QUICK else pytest.mark.slow) for b in BACKBONES for s in SUBSETS]
every = pytest.mark.parametrize(("backbone", "subset"), GRID)


def logits(model: TwoTower, batch: Batch) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(batch).logits


def made(backbone: str, subset: str, seed: int = 0) -> TwoTower:
    return warm(synergised(backbone, settings(subset), seed))


@every
def test_changing_an_item_never_moves_a_user_and_memory_is_read(backbone: str, subset: str) -> None:
    model, batch = made(backbone, subset), small_batch()
    other = replace(batch, item={k: v.roll(1, 0) for k, v in batch.item.items()})
    model.eval()
    with torch.no_grad():
        before, after = model(batch).user, model(other).user
    assert all(torch.equal(a, b) for a, b in zip(before.groups, after.groups, strict=True))
    if "cts" in subset or "cms" in subset:
        remembered = logits(model, batch)
        model.reset_memory()
        assert not torch.equal(logits(model, batch), remembered)


@every
def test_permuting_a_batch_changes_nothing_neither_scores_nor_gradients_nor_memory(backbone: str, subset: str) -> None:
    batch = timed(small_batch())
    hidden = hidden_of(made(backbone, subset), batch)
    order, objective = torch.randperm(batch.rows), Objective([LossTerm("logloss", logloss)])
    permuted = replace(batch, user_index=batch.user_index[order], item_index=batch.item_index[order], labels=batch.labels[order],
                       where=batch.where[order], ts=batch.ts[order])  # fmt: skip
    seen = []
    for b, h in ((batch, hidden), (permuted, None if hidden is None else hidden[order])):
        model = made(backbone, subset).eval()  # normalisation and dropout off
        output = model(b)
        loss = objective(b, output)[0]
        gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        model.observe(b, output, h)
        seen.append((output.logits, gradients, {k: v for k, v in model.state_dict().items() if k in model.memory_names}))
    torch.testing.assert_close(seen[1][0], seen[0][0][order], atol=1e-6, rtol=1e-6)
    for a, b in zip(seen[0][1], seen[1][1], strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)
    for name, held in seen[0][2].items():
        torch.testing.assert_close(seen[1][2][name], held, atol=1e-6, rtol=1e-6)


@every
def test_a_doubled_row_is_one_vector(backbone: str, subset: str) -> None:
    """Distinct rows encoded once, or every row of the log for itself."""
    model, batch = made(backbone, subset), small_batch()
    plain = replace(
        batch, user={k: v[batch.user_index] for k, v in batch.user.items()},
        item={k: v[batch.item_index[:, 0]] for k, v in batch.item.items()}, user_index=torch.arange(batch.rows),
        item_index=torch.arange(batch.rows).unsqueeze(1),
    )  # fmt: skip
    torch.testing.assert_close(logits(model, plain), logits(model, batch), atol=1e-6, rtol=1e-6)


@every
def test_save_load_same_scores_memory_among_the_weights(backbone: str, subset: str, tmp_path: Path) -> None:
    model, batch = made(backbone, subset), small_batch()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    other = synergised(backbone, settings(subset), seed=99)
    assert not torch.equal(logits(other, batch), logits(model, batch))
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert torch.equal(logits(other, batch), logits(model, batch))
    assert other.memory_names == model.memory_names


@every
def test_every_parameter_learns(backbone: str, subset: str) -> None:
    """A non-zero gradient within 20 batches, memories warm; a bias before BatchNorm is exempt (BatchNorm subtracts it again)."""
    model, own = made(backbone, subset), TERMS_OF.get(MODELS[backbone]["name"], [])
    objective = build.objective([TermConfig.model_validate(term) for term in ({"loss": "logloss"}, *own)], small_schema())
    total: dict[str, float] = dict.fromkeys(dict(model.named_parameters()), 0.0)
    for seed in range(20):
        model.train()
        model.zero_grad()
        batch = timed(small_batch(seed), 10**10 * (seed + 1))
        output = model(batch)
        objective(batch, output)[0].backward()
        model.observe(batch, output, hidden_of(model, batch, seed))
        for name, p in model.named_parameters():
            total[name] += 0.0 if p.grad is None else p.grad.abs().sum().item()
    silent = [n for n, t in total.items() if t == 0 and not n.endswith("linear.bias")]
    assert silent == []


@every
def test_served_is_trained(backbone: str, subset: str) -> None:
    """What serving makes of the model (folded, fields of memory made in advance, the user tower recorded) says the same."""
    model, batch = made(backbone, subset).eval().requires_grad_(False), small_batch()
    said = model.encode("user", batch.user).flat()
    quick = folded(model, lambda m: m.encode("user", batch.user).flat())  # type: ignore[operator]
    assert quick is not model
    off = (quick.encode("user", batch.user).flat() - said).abs() / said.abs().clamp(min=1)  # type: ignore[operator]
    assert off.max() <= 1e-5
    assert record(lambda columns: quick.encode("user", columns), batch.user) is not None  # type: ignore[operator]


@every
def test_at_learning_rate_zero_a_label_never_reaches_its_own_logit(backbone: str, subset: str) -> None:
    """In every epoch, memories reset at its start; the rows behind are told of it."""
    batches = [timed(small_batch(seed), 10**9 * (seed + 1)) for seed in range(3)]
    flipped = [replace(batches[0], labels=torch.cat([1 - batches[0].labels[:1], batches[0].labels[1:]])), *batches[1:]]
    seen = []
    for log in (batches, flipped):
        model, rounds = synergised(backbone, settings(subset)), []
        model.train()
        for _ in range(3):
            model.reset_memory()
            for batch in log:
                output = model(batch)
                model.observe(batch, output, hidden_of(model, batch))
                rounds.append(output.logits.detach())
        seen.append(torch.stack(rounds))
    assert torch.equal(seen[0][0::3, 0], seen[1][0::3, 0])  # the flipped row's own logit
    assert torch.equal(seen[0], seen[1]) == ("cts" not in subset)
