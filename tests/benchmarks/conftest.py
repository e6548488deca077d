"""MovieLens-1M in its official format, far smaller."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def tiny_movielens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that PRERANK_DATA points at: 60 users, 40 movies, 3,000 ratings."""
    folder = tmp_path / "data" / "ml-1m"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    taste, worth = rng.normal(size=60), rng.normal(size=40)
    users, movies = rng.integers(0, 60, 3000), rng.integers(0, 40, 3000)
    ratings = np.clip(np.round(3 + taste[users] + worth[movies]), 1, 5).astype(int)
    lines = [f"{u + 1}::{m + 1}::{r}::{978300000 + i}" for i, (u, m, r) in enumerate(zip(users, movies, ratings, strict=True))]
    (folder / "ratings.dat").write_text("\n".join(lines) + "\n")
    (folder / "users.dat").write_text("".join(f"{u}::{'FM'[u % 2]}::{18 + u % 3}::{u % 5}::12345\n" for u in range(1, 61)))
    (folder / "movies.dat").write_text("".join(f"{m}::Film {m} (1999)::{'Drama|War' if m % 2 else 'Comedy'}\n" for m in range(1, 41)))
    monkeypatch.setenv("PRERANK_DATA", str(folder.parent))
    monkeypatch.setenv("PRERANK_CACHE", str(tmp_path / "cache"))
    return folder
