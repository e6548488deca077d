from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from prerank.config import ConfigError
from prerank.training import checkpoint


def test_round_trip_and_only_the_newest_is_kept(tmp_path: Path) -> None:
    for n in (1, 2, 3):
        checkpoint.save(tmp_path, {"model/w": torch.full((2,), float(n)), "rng/cpu": torch.get_rng_state()}, {"epoch": n})
    found = checkpoint.load(tmp_path)
    assert found is not None
    assert found.state == {"epoch": 3}
    assert found.part("model")["w"].tolist() == [3.0, 3.0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["3", "current"]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path) is None


@pytest.mark.parametrize("where", ["save_file", "write_text"])
def test_a_crash_while_writing_leaves_the_last_one_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    checkpoint.save(tmp_path, {"w": torch.ones(2)}, {"epoch": 1})

    def crash(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, where, crash)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path, {"w": torch.zeros(2)}, {"epoch": 2})
    monkeypatch.undo()
    found = checkpoint.load(tmp_path)
    assert found is not None
    assert (found.state, found.tensors["w"].tolist()) == ({"epoch": 1}, [1.0, 1.0])
    checkpoint.save(tmp_path, {"w": torch.zeros(2)}, {"epoch": 3})
    assert checkpoint.load(tmp_path).state == {"epoch": 3}  # type: ignore[union-attr]


def test_a_marker_of_a_folder_that_is_gone_is_no_fresh_start(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, {"x": torch.zeros(1)}, {})
    shutil.rmtree(tmp_path / "1")
    with pytest.raises(ConfigError, match="names '1', which is not there; start again with --overwrite"):
        checkpoint.load(tmp_path)
