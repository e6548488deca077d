"""What every ranker must hold, whatever its name; tests/rankers/conftest.py lists them."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from prerank import build
from prerank.batch import Batch, Output
from prerank.config import ConfigError, Model
from prerank.losses import LossTerm, Objective, logloss
from prerank.rankers import RANKERS as CATALOGUE
from prerank.rankers import Ranker
from tests.conftest import SIZES, small_batch, small_schema
from tests.rankers.conftest import RANKERS, small_ranker

LISTS = {"rows": {"lists": 24, "candidates": 1}, "lists": {"lists": 6, "candidates": 7}}
OBJECTIVE = Objective([LossTerm("logloss", logloss)])


@pytest.fixture(params=list(RANKERS))
def ranker(request: pytest.FixtureRequest) -> Ranker:
    """Every ranker in turn, fresh; in some, parts start at zero and would hide what they read: they are drawn at random."""
    model = small_ranker(request.param)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.startswith(("wide.", "product.")):
                p.normal_(0.0, 0.3)
    return model


def evaluated(model: Ranker, batch: Batch) -> Output:
    model.eval()
    with torch.no_grad():
        return model(batch)


def logits(model: Ranker, batch: Batch) -> torch.Tensor:
    return evaluated(model, batch).logits


def test_every_registered_ranker_is_checked_here() -> None:
    assert {options["name"] for options in RANKERS.values()} == set(CATALOGUE)


@pytest.mark.parametrize("shape", LISTS)
@pytest.mark.parametrize("objectives", [("like",), ("click", "buy")])
@pytest.mark.parametrize("name", RANKERS)
def test_shapes(name: str, shape: str, objectives: tuple[str, ...]) -> None:
    model, batch = small_ranker(name, objectives), small_batch(objectives=len(objectives), **LISTS[shape])
    output = model(batch)
    assert output.logits.shape == (*batch.item_index.shape, len(objectives))
    assert output.logits.dtype == torch.float32
    assert output.user is output.item is None
    assert output.groups == ()
    if output.hidden is None:
        assert model.network is None
    else:
        assert output.hidden.shape[:2] == batch.item_index.shape
        assert output.hidden.dim() == 3
    assert torch.isfinite(output.logits).all()


@pytest.mark.parametrize("objectives", [("like",), ("click", "buy")])
@pytest.mark.parametrize("name", RANKERS)
def test_hidden_is_what_the_last_linear_layer_reads(name: str, objectives: tuple[str, ...]) -> None:
    """The logits, less the wide part and the id head, are an affine function of hidden; objectives differ."""
    model = small_ranker(name, objectives)
    if len(objectives) == 2:
        two = logits(model, small_batch())
        assert name.startswith("lr") or not torch.allclose(two[..., 0], two[..., 1])
    if model.network is None:
        return
    model.wide = model.product = None
    output = evaluated(model, small_batch(lists=999, users=27, items=37))
    hidden, values = output.hidden[:, 0].double(), output.logits[:, 0].double()
    distinct = torch.unique(hidden, dim=0).shape[0]
    assert hidden.shape[1] + 1 < distinct / 2
    known = torch.cat([hidden, torch.ones(999, 1)], dim=1)
    solved = torch.linalg.lstsq(known, values, driver="gelsd").solution
    torch.testing.assert_close(known @ solved, values, atol=1e-5, rtol=1e-5)


def test_both_sides_move_the_logits(ranker: Ranker, request: pytest.FixtureRequest) -> None:
    """Every feature does, of a model that was cut down (`keep`) those that it has left."""
    batch, kept = small_batch(), RANKERS[request.node.callspec.params["ranker"]].get("keep")
    for side in ("user", "item"):
        columns = getattr(batch, side)
        for feature in columns:
            moved = columns[feature].roll(1, 0)
            read = kept is None or feature in "*".join(kept).split("*")
            if read and not torch.equal(moved, columns[feature]):
                other = replace(batch, **{side: {**columns, feature: moved}})
                assert not torch.equal(logits(ranker, other), logits(ranker, batch)), feature


def test_permuting_candidates_permutes_logits_and_hidden(ranker: Ranker) -> None:
    batch = small_batch(lists=6, candidates=7)
    order = torch.randperm(7)
    permuted = replace(batch, item_index=batch.item_index[:, order], labels=batch.labels[:, order], where=batch.where[:, order])
    before, after = evaluated(ranker, batch), evaluated(ranker, permuted)
    torch.testing.assert_close(after.logits, before.logits[:, order], atol=1e-6, rtol=1e-5)
    if before.hidden is not None:
        torch.testing.assert_close(after.hidden, before.hidden[:, order], atol=1e-6, rtol=1e-5)


def test_padding_changes_nothing(ranker: Ranker) -> None:
    """In training mode too: padded pairs are in no BatchNorm statistic."""
    batch = small_batch(lists=6, candidates=7)
    assert not batch.where.all()
    labels = torch.where(batch.where[..., None], batch.labels, 1 - batch.labels)
    elsewhere = replace(batch, item_index=torch.where(batch.where, batch.item_index, 3), labels=labels)
    for mode in (False, True):
        ranker.train(mode)
        with torch.no_grad():
            torch.manual_seed(1)
            one = ranker(batch)
            torch.manual_seed(1)
            two = ranker(elsewhere)
        assert torch.equal(one.logits, two.logits)
        assert torch.equal(OBJECTIVE(batch, one)[0], OBJECTIVE(elsewhere, two)[0])
        assert one.logits[~batch.where].abs().sum() == 0


def test_permuting_a_batch_changes_nothing(ranker: Ranker) -> None:
    batch = small_batch()
    order = torch.randperm(batch.rows)
    permuted = replace(batch, user_index=batch.user_index[order], item_index=batch.item_index[order], labels=batch.labels[order])
    ranker.eval()  # normalisation and dropout off
    losses = [OBJECTIVE(b, ranker(b))[0] for b in (batch, permuted)]
    gradients = [torch.autograd.grad(x, [p for p in ranker.parameters() if p.requires_grad], allow_unused=True) for x in losses]
    assert abs(losses[0] - losses[1]).item() <= 1e-6
    for a, b in zip(*gradients, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_a_row_alone_scores_as_in_its_batch(ranker: Ranker) -> None:
    batch = small_batch(lists=6, candidates=7)
    together = logits(ranker, batch)
    for b in range(6):
        for c in batch.where[b].nonzero().squeeze(1).tolist():
            u, i = int(batch.user_index[b]), int(batch.item_index[b, c])
            one = Batch({k: v[u : u + 1] for k, v in batch.user.items()}, {k: v[i : i + 1] for k, v in batch.item.items()},
                        torch.zeros(1, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1, 1),
                        torch.ones(1, 1, dtype=torch.bool))  # fmt: skip
            torch.testing.assert_close(logits(ranker, one)[0, 0], together[b, c], atol=1e-5, rtol=1e-5)


def test_save_load_same_scores(ranker: Ranker, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    batch = small_batch()
    for _ in range(3):
        ranker.train()
        ranker(batch)  # BatchNorm statistics are part of the model
    save_file(ranker.state_dict(), tmp_path / "w.safetensors")
    other = small_ranker(request.node.callspec.params["ranker"], seed=99)
    assert not torch.equal(logits(other, batch), logits(ranker, batch))
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert torch.equal(logits(other, batch), logits(ranker, batch))


@pytest.mark.parametrize("name", RANKERS)
def test_every_parameter_learns(name: str) -> None:
    """A non-zero gradient within 20 batches; a bias before BatchNorm is exempt (BatchNorm subtracts it again)."""
    model = small_ranker(name)
    total: dict[str, float] = dict.fromkeys(dict(model.named_parameters()), 0.0)
    for seed in range(20):
        model.train()
        model.zero_grad()
        batch = small_batch(seed)
        OBJECTIVE(batch, model(batch))[0].backward()
        for p_name, p in model.named_parameters():
            total[p_name] += 0.0 if p.grad is None else p.grad.abs().sum().item()
    silent = [n for n, t in total.items() if t == 0 and not n.endswith("linear.bias")]
    assert silent == []


def test_bf16_is_near_and_ends_in_fp32(ranker: Ranker) -> None:
    batch = small_batch(lists=6, candidates=7)
    full = evaluated(ranker, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = evaluated(ranker, batch)
    assert half.logits.dtype == torch.float32
    assert half.hidden is None or half.hidden.dtype == torch.float32
    torch.testing.assert_close(half.logits, full.logits, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("name", RANKERS)
def test_one_batch_can_be_overfitted(name: str) -> None:
    model, batch = small_ranker(name), small_batch(lists=16, users=16, items=15)
    batch = replace(batch, user_index=torch.arange(16), labels=(torch.arange(16) % 2).float().view(16, 1, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    model.train()
    for _ in range(300):
        optimizer.zero_grad()
        loss, _ = OBJECTIVE(batch, model(batch))
        if loss.item() < 0.05:
            return
        loss.backward()
        optimizer.step()
    raise AssertionError(f"300 steps brought the loss to {loss.item():.3f} only")


def test_cold_rows_are_filled(ranker: Ranker) -> None:
    """A user and an item that training never saw read the average row, in every table they have."""
    counts = {name: torch.cat([torch.tensor([0, 0, 0]), torch.arange(1, n - 2)]) for name, n in SIZES.items()}
    before = {n: p.clone() for n, p in ranker.named_parameters()}
    ranker.fill_cold_rows(counts)
    changed = {n for n, p in ranker.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {n for n in before if ".tables." in n or n.startswith("product.")}


@pytest.mark.parametrize("name", CATALOGUE)
def test_docstrings_cite_their_source(name: str) -> None:
    module = inspect.getmodule(CATALOGUE[name])
    doc = (module.__doc__ if module else "") or ""
    assert re.search(r"\b(19|20)\d\d\b", doc), f"the first lines of {name}'s module name no year"
    assert inspect.getdoc(CATALOGUE[name])


@pytest.mark.parametrize("name", CATALOGUE)
def test_an_unknown_option_names_the_valid_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=f"model '{name}': unknown option 'zzz'; valid: .*id_head"):
        build.model(Model.model_validate({"name": name, "zzz": 1}), small_schema(), SIZES)


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("id_head", 0, "id_head: must be at least 1 or null; got 0"),
        ("hidden", [8, 0], r"hidden: widths must be at least 1; got \[8, 0\]"),
        ("activation", "cube", "activation: must be one of .*; got 'cube'"),
        ("dropout", 1.0, "dropout: must be at least 0 and below 1; got 1.0"),
    ],
)
def test_wrong_values_of_the_usual_options(name: str, option: str, value: object, message: str) -> None:
    valid = inspect.signature(CATALOGUE[name]).parameters
    if option not in valid:
        pytest.skip(f"{name} has no {option}")
    options = next(o for o in RANKERS.values() if o["name"] == name)
    if "hidden" in valid:
        options = {"hidden": [8], **options}  # where layers are optional, their options are looked at when there are some
    with pytest.raises(ConfigError, match=f"model '{name}': {message}"):
        build.model(Model.model_validate({**options, option: value}), small_schema(), SIZES)
