"""DAT's and HIT's towers: who reads the guess, and who feels it."""

from __future__ import annotations

import pytest
import torch

from prerank import build
from prerank.config import ConfigError, Model
from prerank.losses import LossTerm, Objective, logloss
from tests.conftest import SIZES, small_batch, small_model, small_schema


@pytest.mark.parametrize("name", ["dat", "dat-dot-id-head"])
def test_a_user_holds_the_vector_of_its_id_and_reads_it(name: str) -> None:
    model, batch = small_model(name).eval(), small_batch()
    tower = model.user if name == "dat" else model.user.inner
    said = model.encode("user", batch.user)
    assert said.guess is not None
    assert torch.equal(said.guess, tower.ids.table[batch.user["user_id"].long()])
    with torch.no_grad():
        tower.ids.table.add_(0.5)
    assert not torch.equal(model.encode("user", batch.user).groups[0], said.groups[0])


def test_the_tower_is_an_mlp_over_fields_and_guess() -> None:
    model, batch = small_model("dat").eval(), small_batch()
    fields, guess = model.embeddings("item", batch.item), model.item.ids(batch.item["item_id"])
    vector = model.item.inner.project(model.item.inner.mlp(torch.cat([fields.flatten(1), guess], dim=1)))
    found = model.encode("item", batch.item).groups[0][:, 0]
    torch.testing.assert_close(found, torch.nn.functional.normalize(vector, dim=1))


def test_ids_that_training_never_saw_hold_the_average_guess() -> None:
    model = small_model("dat")
    counts = {name: torch.ones(n) for name, n in SIZES.items()}
    counts["item_id"][:3] = 0
    model.fill_cold_rows(counts)
    table = model.item.ids.table
    torch.testing.assert_close(table[2], table[3:].mean(dim=0))


def test_guesses_of_several_objectives_lie_one_after_another() -> None:
    for name, width in (("dat", 8), ("hit", 12)):
        model = small_model(name, ("click", "buy")).eval()
        said = model.encode("user", small_batch().user)
        assert said.guess is not None
        assert said.guess.shape == (10, 2 * width)


def test_a_generator_points_and_learns_from_its_own_loss_alone() -> None:
    model, batch = small_model("hit"), small_batch()
    output = model(batch)
    assert output.user.guess is not None
    torch.testing.assert_close(output.user.guess.norm(dim=1), torch.ones(10))
    Objective([LossTerm("logloss", logloss)])(batch, output)[0].backward()
    assert all(p.grad is None for p in model.user.generator.parameters())
    model.zero_grad()
    build.objective([build.TermConfig(loss="generator")], small_schema())(batch, model(batch))[0].backward()
    felt = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert felt
    assert all("generator" in name for name in felt)  # the embeddings do not feel it


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"name": "dat", "width": 0}, "model 'dat': width: must be at least 1; got 0"),
        ({"name": "dat", "similarity": "cos"}, "model 'dat': similarity: must be cosine or dot; got 'cos'"),
        ({"name": "hit", "heads": 0}, "model 'hit': heads: must be at least 1; got 0"),
        ({"name": "hit", "generator": [0]}, r"model 'hit': generator: widths must be at least 1; got \[0\]"),
        ({"name": "hit", "generators": [8]}, r"model 'hit': unknown option 'generators'; did you mean 'generator'\?"),
    ],
)
def test_wrong_options_are_told(raw: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build.model(Model.model_validate(raw), small_schema(), SIZES)
