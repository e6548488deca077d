"""Generations: whole or not seen, numbered, checked when opened."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from prerank.serving import Generation, GenerationError, current, export, generation, open_current
from prerank.serving.generation import generations
from tests.serving.world import OPTIONS, model, published, world


def test_what_was_written_is_read(data, tmp_path):
    published(tmp_path, data)
    generation = open_current(tmp_path)
    assert generation.folder == tmp_path / "gen-000001"
    assert (generation.meta.number, generation.meta.objectives, generation.meta.dtype) == (1, ["click"], "fp32")
    assert generation.schema == data.schema
    assert generation.item_ids.rows(data.item_ids.to_list()).tolist() == list(range(len(data.item_ids)))
    assert generation.user_ids.rows(data.user_ids.to_list()).tolist() == list(range(len(data.user_ids)))
    for name, column in generation.users.items():
        np.testing.assert_array_equal(column, data.users[name])
    assert set(generation.calibrators) == {"click"}


def test_numbers_rise_and_the_last_three_stay(data, tmp_path):
    for _ in range(5):
        published(tmp_path, data, "mf")
    assert [p.name for p in generations(tmp_path)] == ["gen-000003", "gen-000004", "gen-000005"]
    assert current(tmp_path).name == "gen-000005"


def test_two_exports_at_once_take_turns(data, tmp_path):
    made = model(data, "mf")
    threads = [threading.Thread(target=export, args=(data, made), kwargs={"folder": tmp_path, "options": OPTIONS["mf"]}) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [p.name for p in generations(tmp_path)] == ["gen-000001", "gen-000002", "gen-000003"]
    assert current(tmp_path).name == "gen-000003"


def test_an_export_that_fails_leaves_the_old_one_and_no_rest(data, tmp_path):
    published(tmp_path, data, "mf")
    broken = model(data, "mf")
    with torch.no_grad():
        next(broken.item.parameters())[7] = float("nan")
    with pytest.raises(GenerationError, match="item vectors must be finite"):
        export(data, broken, folder=tmp_path, options=OPTIONS["mf"])
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "current.json", "gen-000001"]


def test_a_full_disk_leaves_nothing(data, tmp_path, monkeypatch):
    published(tmp_path, data, "mf")

    def full(path, array):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        published(tmp_path, data, "mf")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "current.json", "gen-000001"]


KILLED = """
import os, sys, time
from pathlib import Path
from prerank.serving.generation import write
def fill(path):
    (path / "items.npy").write_bytes(b"half")
    print("filling", flush=True)
    time.sleep(60)
write(Path(sys.argv[1]), fill)
"""


def test_killed_in_the_middle_the_half_is_never_seen_and_is_cleared_later(data, tmp_path):
    published(tmp_path, data, "mf")
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "filling\n"
    assert open_current(tmp_path).meta.number == 1
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".tmp-")]
    assert [p.name for p in generations(tmp_path)] == ["gen-000001"]
    published(tmp_path, data, "mf")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "current.json", "gen-000001", "gen-000002"]


def _cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 0x40
    path.write_bytes(content)


def _edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda g: _cut(g / "items.npy"), r"file 'items.npy' must have \d+ bytes, it has \d+"),
        (lambda g: (g / "weights.safetensors").unlink(), "file 'weights.safetensors' is missing"),
        (lambda g: (g / "users" / "age.npy").unlink(), "file 'users/age.npy' is missing"),
        (lambda g: _cut(g / "meta.json"), "meta.json cannot be read"),
        (lambda g: (g / "meta.json").write_text("{}"), "missing required field"),
        (lambda g: _edit(g / "meta.json", fingerprint="0" * 16), "schema fingerprint must be 0000000000000000, it is"),
        (lambda g: _edit(g / "meta.json", items=7), "item rows must be 7, there are 300"),
        (lambda g: _edit(g / "meta.json", groups=[[1, 1, 99, 0]]), "item rows must be float32"),
        (lambda g: _edit(g / "meta.json", calibrators={"click": {"kind": "x"}}), "kind must be one of"),
        (
            lambda g: (g / "encoders" / "encoders.json").write_bytes(b"x" * (g / "encoders" / "encoders.json").stat().st_size),
            "cannot be read|checksum differs",
        ),
        (lambda g: _flip(g / "items.npy", -4), "file 'items.npy' is not as it was written, its checksum differs"),
        (lambda g: _flip(g / "weights.safetensors", -4), "file 'weights.safetensors' is not as it was written"),
        (lambda g: _flip(g / "users" / "age.npy", -2), "file 'users/age.npy' is not as it was written"),
        (lambda g: (g / "items.npy").write_bytes(b"x" * (g / "items.npy").stat().st_size), "generation '.*'"),
        (lambda g: (g / "item_ids.parquet").write_bytes(b"x" * (g / "item_ids.parquet").stat().st_size), "generation '.*'"),
        (lambda g: (g / "weights.safetensors").write_bytes(b"x" * (g / "weights.safetensors").stat().st_size), "generation '.*'"),
    ],
)
def test_a_spoilt_generation_is_one_line(data, tmp_path, spoil, message):
    published(tmp_path, data, "mf")
    spoil(tmp_path / "gen-000001")
    with pytest.raises(GenerationError, match=message) as caught:
        Generation(tmp_path / "gen-000001")
    assert "\n" not in str(caught.value)


def test_no_generation(tmp_path):
    with pytest.raises(GenerationError, match=r"holds no current.json; `prerank export` writes one"):
        open_current(tmp_path)
    (tmp_path / "current.json").write_text('{"generation": "gen-000009"}')
    with pytest.raises(GenerationError, match="names 'gen-000009', which is not there"):
        open_current(tmp_path)
    (tmp_path / "current.json").write_text("[1")
    with pytest.raises(GenerationError, match="cannot be read"):
        open_current(tmp_path)


def test_nothing_is_pickled(data, tmp_path):
    published(tmp_path, data, "mf")
    kinds = {p.suffix for p in (tmp_path / "gen-000001").rglob("*") if p.is_file()}
    assert kinds == {".json", ".safetensors", ".npy", ".parquet"}
    for path in (tmp_path / "gen-000001").rglob("*.npy"):
        np.load(path, allow_pickle=False)


def test_readers_see_whole_generations_while_new_ones_are_published(data, tmp_path):
    published(tmp_path, data, "mf")
    stop, seen, failures = threading.Event(), [], []

    def read():
        while not stop.is_set():
            try:
                seen.append(open_current(tmp_path).meta.number)
            except GenerationError as error:
                failures.append(error)
            time.sleep(0.001)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(4):
        published(tmp_path, data, "mf")
    stop.set()
    reader.join()
    assert seen == sorted(seen)
    assert not failures


def test_a_generation_swept_away_while_it_is_opened_is_left_for_the_next(data, tmp_path, monkeypatch):
    published(tmp_path, data, "mf")
    opened = generation.Generation

    def slowly(folder):
        if folder.name == "gen-000001":
            for _ in range(3):  # as many as are kept
                published(tmp_path, data, "mf")
        return opened(folder)

    monkeypatch.setattr(generation, "Generation", slowly)
    assert open_current(tmp_path).meta.number == 4


def test_a_broken_generation_is_told_and_not_opened_for_ever(data, tmp_path):
    published(tmp_path, data, "mf")
    next((tmp_path / "gen-000001" / "encoders").iterdir()).unlink()
    with pytest.raises(GenerationError, match="gen-000001"):
        open_current(tmp_path)


@pytest.mark.parametrize("options", [{"dtype": "fp8"}, {"calibrator": "beta"}])
def test_unknown_options(data, tmp_path, options):
    with pytest.raises(GenerationError, match="must be one of"):
        published(tmp_path, data, "mf", **options)


def test_ids_that_cannot_be_served(tmp_path):
    import polars as pl

    for ids, message in (
        (pl.Series([1.5] * 300), "must be integers or text"),
        (pl.Series([2**63] * 300, dtype=pl.UInt64), "must fit in 64 bits"),
    ):
        broken = world()
        broken.item_ids = ids
        with pytest.raises(GenerationError, match=message):
            published(tmp_path, broken, "mf")
