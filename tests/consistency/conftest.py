from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.consistency.world import candidates, trained


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scored.parquet: every candidate with its scores."""
    folder = tmp_path_factory.mktemp("simulated")
    candidates().write_parquet(folder / "scored.parquet")
    return folder


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """log.parquet, and the runs mf, dssm and ranker trained on it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs")
    candidates(300).write_parquet(folder / "log.parquet")
    trained(folder, "mf")
    trained(folder, "dssm", **{"model": {"name": "dssm", "hidden": [8], "width": 8}})
    trained(folder, "ranker", **{"model": {"name": "deepfm", "hidden": [8]}})
    return folder
