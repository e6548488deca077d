"""The boards that the repository brings can be read, and what they change is a setting that there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from prerank import build
from prerank.config import ConfigError
from prerank.datasets import RECIPES
from prerank.leaderboard import load
from prerank.schema import Schema

BOARDS = sorted(Path("configs/leaderboards").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent.parent.parent)


def test_there_are_some() -> None:
    assert {"ml1m-honest", "ml1m-official-leaky", "kuairand", "ml1m-ablation"} <= {path.stem for path in BOARDS}


@pytest.mark.parametrize("path", BOARDS, ids=lambda p: p.stem)
def test_a_board_of_ours_can_be_built(path: Path) -> None:
    board, entries = load(path)
    assert len({entry.digest for entry in entries}) == len(entries)  # no row is another one under a second name
    for entry in entries:
        assert bool(entry.config.leaky) == bool(board.leaky)
        schema = described(entry.config.data)
        build.objective(entry.config.objective, schema)
        build.check_model(entry.config.model, schema, entry.config.objective)


def described(data) -> Schema:
    """The schema of a recipe's settings, whose files need not be here."""
    filled = type(data).model_validate(RECIPES[data.recipe].defaults(data.options))
    said = {name: getattr(data, name) for name in data.model_fields_set if name != "recipe"}
    try:
        return filled.model_copy(update=said).schema_()
    except ConfigError as error:
        raise AssertionError(f"{data.recipe}: {error}") from None
