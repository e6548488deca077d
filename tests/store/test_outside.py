"""Stores by address: opened late, shared by copies, refused when they hold something else."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from prerank.store import Outside, SpaceError, StoreError


def write(store: Outside, id: int) -> None:
    store.blend(torch.tensor([id]), torch.ones(1, store.width), 0.8, torch.tensor([1]))


def test_nothing_is_touched_before_it_is_needed(tmp_path: Path) -> None:
    store = Outside(f"lmdb:{tmp_path}/m.lmdb", "a", 2, "s")
    copied = copy.deepcopy(store)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StoreError, match="is not there"):
        store.get(torch.tensor([1]))
    write(store, 1)
    assert copied is store
    assert len(store) == 1


def test_stores_of_one_file_share_it(tmp_path: Path) -> None:
    """A second opening of the file in one process would not be let."""
    one, other, same = (Outside(f"lmdb:{tmp_path}/m.lmdb", name, 2, "s") for name in ("a", "b", "a"))
    write(one, 1)
    write(other, 2)
    assert (len(one), len(other), len(same)) == (1, 1, 1)


def test_another_space_or_width_is_refused(tmp_path: Path) -> None:
    write(Outside(f"lmdb:{tmp_path}/m.lmdb", "a", 2, "s"), 1)
    for width, space in ((2, "t"), (3, "s")):
        with pytest.raises(SpaceError, match=f"must be of width and space '{width} {space}'; it holds '2 s'"):
            len(Outside(f"lmdb:{tmp_path}/m.lmdb", "a", width, space))


def test_what_cannot_be_reached_says_so(tmp_path: Path) -> None:
    store = Outside(f"lmdb:{tmp_path}/m.lmdb", "a", 2, "s")
    with pytest.raises(StoreError, match="is not there"):
        len(store)
    store.begin()
    assert len(store) == 0
    with pytest.raises(StoreError, match="cannot be reached"):
        len(Outside("redis://127.0.0.1:1/0", "a", 2, "s"))
