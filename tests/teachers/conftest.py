"""A small log whose rows can be told apart, and quick rankers over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from prerank.config import Config, parse
from tests.training.conftest import planted_log, settings


def numbered(rows: int = 3000) -> pl.DataFrame:
    """The planted log with a number a row, times in no order, and a column that only conditions read."""
    rng = np.random.default_rng(3)
    return planted_log(rows, 40, 30).with_columns(
        row=pl.Series(np.arange(rows)), ts=pl.Series(rng.permutation(rows) + 1_650_000_000), rating=pl.Series(rng.integers(1, 6, rows))
    )


def config(folder: Path, model: dict[str, Any] | None = None, **changes: Any) -> Config:
    """A quick ranker over folder/log.parquet."""
    return parse(settings(folder, model=model or {"name": "mlp", "hidden": [8]}, **{"training.epochs": 1, **changes}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teachers")
    numbered().write_parquet(folder / "log.parquet")
    return folder
