from __future__ import annotations

from pathlib import Path

import pytest
import torch

from prerank.config import Data, Model
from prerank.data import Dataset, prepare
from prerank.tuning import p50
from tests.training.conftest import planted_log, settings


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("latency")
    planted_log(2000, 50, 40).write_parquet(folder / "log.parquet")
    return prepare(Data.model_validate(settings(folder)["data"]))


def test_more_candidates_take_longer_and_the_threads_are_given_back(dataset: Dataset) -> None:
    before = torch.get_num_threads()
    config = Model.model_validate({"name": "inttower", "hidden": [16], "heads": 2})
    few, many = p50(config, dataset, 10), p50(config, dataset, 20_000)
    assert 0 < few < many < 1000
    assert torch.get_num_threads() == before


def test_a_ranker_is_measured_too(dataset: Dataset) -> None:
    assert p50(Model(name="lr"), dataset, 100) > 0


def test_nothing_is_left_behind(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    p50(Model(name="mf"), dataset, 10)
    assert list(tmp_path.iterdir()) == []
