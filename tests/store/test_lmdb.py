"""What is LMDB's own: several stores in one file, several processes, and what is refused."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch

from prerank.store import LmdbFile, StoreError

WRITER = """
import sys, torch
from prerank.store import LmdbFile
store = LmdbFile(sys.argv[1], map_size=1 << 24, sync=False).store("n", 1, "a")
for _ in range(200):
    store.blend(torch.tensor([1]), torch.ones(1, 1), None, torch.tensor([1]))
"""

STAMPED = """
import sys, torch
from prerank.store import History, LmdbFile, Stamp
store = LmdbFile(sys.argv[1], map_size=1 << 26, sync=False).store("n", 8, "a", History(10, 100))
start = store.done("w").upto + 1 - 500  # a checkpoint lies behind
print("begun", flush=True)
for n in range(max(0, start) // 50, 10**9):
    offsets = torch.arange(n * 50, n * 50 + 50)
    store.blend(offsets % 300, torch.ones(50, 8), None, torch.full((50,), n), Stamp("w", offsets, n))
"""


def test_stores_of_a_file_are_apart_and_stay(tmp_path):
    file = LmdbFile(tmp_path / "m", map_size=1 << 24)
    file.store("a", 2, "s").blend(torch.tensor([-5]), torch.ones(1, 2), None, torch.tensor([9]))
    assert len(file.store("b", 3, "s")) == 0
    file.close()
    again = LmdbFile(tmp_path / "m", map_size=1 << 24)
    assert again.store("a", 2, "s").get(torch.tensor([-5, 5])).counts.tolist() == [1, 0]
    again.close()


@pytest.mark.parametrize(("width", "space"), [(3, "s"), (2, "other")])
def test_another_width_or_space_is_refused(tmp_path, width, space):
    file = LmdbFile(tmp_path / "m", map_size=1 << 24)
    file.store("a", 2, "s")
    with pytest.raises(StoreError, match=f"must be of width and space '{width} {space}'; it holds '2 s'"):
        file.store("a", width, space)
    file.close()


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    path = str(tmp_path / "m")
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path]) for _ in range(2)]
    assert [w.wait(timeout=60) for w in writers] == [0, 0]
    file = LmdbFile(path, map_size=1 << 24)
    assert file.store("n", 1, "a").get(torch.tensor([1])).counts.tolist() == [400]
    file.close()


def test_a_writer_that_is_killed_and_goes_on_blends_each_row_once(tmp_path):
    path = str(tmp_path / "m")
    for pause in (0.05, 0.21, 0.13):
        writer = subprocess.Popen([sys.executable, "-c", STAMPED, path], stdout=subprocess.PIPE)
        assert writer.stdout.readline() == b"begun\n"
        time.sleep(pause)
        writer.kill()
        writer.wait(timeout=60)
        writer.stdout.close()
    file = LmdbFile(path, map_size=1 << 26)
    store = file.store("n", 8, "a")
    rows = store.done("w").upto + 1
    assert rows > 500
    assert store.get(torch.arange(300)).counts.tolist() == [len(range(i, rows, 300)) for i in range(300)]
    file.close()


def test_a_file_that_cannot_be_opened_or_is_full_is_told(tmp_path):
    with pytest.raises(StoreError, match="cannot be opened"):
        LmdbFile(tmp_path / "no" / "m")
    file = LmdbFile(tmp_path / "m", map_size=1 << 16)
    store, ids = file.store("a", 64, "s"), torch.arange(2000)
    with pytest.raises(StoreError, match="cannot be written"):
        store.blend(ids, torch.ones(2000, 64), 0.5, ids)
    assert len(store) == 0  # a transaction is whole or nothing
    file.close()
