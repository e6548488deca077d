"""The configs of data sets that are not here load, and build their models on tiny files of the official formats."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from prerank import build
from prerank.config import load
from prerank.data import Loader, prepare
from prerank.datasets import RECIPES, resolve
from tests.datasets import tiny

CONFIGS = Path(__file__).parent.parent.parent / "configs"


def test_every_recipe_has_its_tiny_files() -> None:
    assert set(tiny.WRITERS) == {name for name, recipe in RECIPES.items() if recipe.obtain is not None}


@pytest.mark.parametrize("model", ["dssm", "inttower"])
@pytest.mark.parametrize("name", tiny.WRITERS)
def test_a_config_builds_its_model(name: str, model: str, tmp_path: Path) -> None:
    folder = tiny.write(name, tmp_path / "official")
    config = load(CONFIGS / name / f"{model}.yaml")
    assert config.data.recipe == name
    assert config.model.name == model
    dataset = prepare(resolve(config.data.model_copy(update={"options": {"from": str(folder), **tiny.OPTIONS.get(name, {})}})))
    network = build.model(config.model, dataset.schema, dataset.sizes)
    objective = build.objective(config.objective, dataset.schema)
    batch = next(Loader(dataset, dataset.rows("train"), 16).epoch(0))
    loss, _ = objective(batch, network(batch))
    loss.backward()
    assert torch.isfinite(loss)
