"""The ranking model in a process of its own: what it has seen of later rows reaches no earlier one, and nothing is blended twice."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prerank.config import Config, ConfigError, Recall
from prerank.data import DataError, prepare
from prerank.online import Told, Trainer, train_online
from prerank.replay import replay
from prerank.store import LmdbFile, LmdbStore, Outside, StoreError
from tests.online.world import N, config, fill, frame

CMS = {"cts": {}, "cms": {"ranker": {"name": "mlp", "hidden": [8]}}}


def given(place: Path, name: str, synergy: dict[str, Any], **online: Any) -> Config:
    """A config whose trainers lie in a folder of this name."""
    base = config(place, output=str(place / name), synergy=synergy)
    assert base.online is not None
    recall = Recall(tick="1m", keep="2h")  # a ranking model that is at the end is 50 minutes ahead
    return base.model_copy(update={"online": base.online.model_copy(update={"start": str(place / "first"), "recall": recall, **online})})


@pytest.fixture
def place(tmp_path: Path) -> Path:
    log = frame()
    log.write_parquet(tmp_path / "log.parquet")
    replay(config(tmp_path, output=str(tmp_path / "first"), synergy=CMS, online=None), window=None)
    fill(tmp_path, frame(seed=5, shuffled=False))
    return tmp_path


def logits_of(config: Config, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    found: list[np.ndarray] = []
    folder = Path(config.output)
    folder.mkdir(exist_ok=True)
    with monkeypatch.context() as patch:
        trainer = Trainer(config, prepare(config.data), folder, lockstep=True)
        patch.setattr(trainer.running, "add", lambda z, y: found.append(z))
        trainer.run(lambda: False, until_empty=True)
    return np.concatenate(found)


@pytest.mark.parametrize("ahead", [True, False])
def test_a_ranking_model_that_is_ahead_tells_nothing_of_later_rows(place: Path, monkeypatch: pytest.MonkeyPatch, ahead: bool) -> None:
    beside = logits_of(given(place, "beside", CMS), monkeypatch)
    apart = given(place, "apart", {**CMS, "store": f"lmdb:{place / 'memory.lmdb'}"}, ranking="apart")
    if ahead:
        train_online(apart, role="ranking", lockstep=True, until_empty=True)
    alone = logits_of(apart, monkeypatch)
    assert (np.abs(alone - beside).max() < 1e-5) == ahead  # without it, the two-tower reads what was remembered at the start


@pytest.mark.parametrize("role", ["two-tower", "ranking"])
def test_blends_are_made_once_through_any_crash(place: Path, role: Any) -> None:
    contents = []
    for name, broken in (("straight", False), ("broken", True)):
        store = place / f"{name}.lmdb"
        settings = given(place, name, {**CMS, "store": f"lmdb:{store}"}, ranking="apart")
        if role == "two-tower":
            train_online(settings, role="ranking", lockstep=True, until_empty=True)
        if not broken:
            train_online(settings, role=role, lockstep=True, until_empty=True)
        else:
            _stumble(settings, role)
        contents.append(_contents(store))
    assert contents[0] == contents[1]
    assert len(contents[0]) > 50


def test_memories_that_were_away_in_the_middle_of_a_batch_lose_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {name: given(place, name, {**CMS, "store": f"lmdb:{place / name}.lmdb"}) for name in ("straight", "away")}
    straight = train_online(settings["straight"], lockstep=True, until_empty=True)
    calls, blend, said = [0], LmdbStore.blend, list[str]()

    def away(self: LmdbStore, *given: Any, **options: Any) -> None:
        calls[0] += 1
        if calls[0] in (50, 51, 120):
            raise StoreError("store 'memory': cannot be reached: it went away")
        blend(self, *given, **options)

    def ended(told: Told) -> None:
        if told.rows == straight.rows and calls[0] > 0:
            calls[0] = -1_000_000  # once: who is asked twice goes at once
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(LmdbStore, "blend", away)
        found = train_online(settings["away"], lockstep=True, say=said.append, told=ended)
    assert found.rows == straight.rows
    assert sum("going on from the last checkpoint when it is back" in line for line in said) == 3
    assert _contents(place / "straight.lmdb") == _contents(place / "away.lmdb")


def test_a_backlog_is_saved_as_often_as_memories_can_be_read_back(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty minutes of events in some seconds: a checkpoint for each five of them, where memories can be read back for ten."""
    settings = given(place, "run", CMS, recall=Recall(tick="1m", keep="10m"))
    (place / "run").mkdir()
    trainer = Trainer(settings, prepare(settings.data), place / "run", lockstep=True)
    known: list[int] = []
    save = trainer.save
    monkeypatch.setattr(trainer, "save", lambda: (known.append(trainer.moments.known), save()))
    trainer.run(lambda: False, until_empty=True)
    assert 8 <= len(known) <= 12
    assert max(np.diff(known)) <= 5 * 60_000 + 2 * 64 * 1000


def test_what_is_remembered_at_the_start_is_what_the_first_run_remembered(place: Path) -> None:
    settings = given(place, "run", {**CMS, "store": f"lmdb:{place / 'memory.lmdb'}"})
    (place / "run").mkdir()
    trainer = Trainer(settings, prepare(settings.data), place / "run")
    trainer.intake.release()
    plain = given(place, "plain", CMS)
    (place / "plain").mkdir()
    other = Trainer(plain, prepare(plain.data), place / "plain")
    ids = torch.arange(3, 33)
    for a, b in zip(trainer.moments._caches, other.moments._caches, strict=True):
        assert torch.equal(a.store.get(ids).vectors, b.store.get(ids).vectors)
    assert sum(len(c.store) for c in other.moments._caches) > 100


def test_memories_that_were_lost_are_not_gone_on_without(place: Path) -> None:
    settings = given(place, "run", {**CMS, "store": f"lmdb:{place / 'memory.lmdb'}"})
    (place / "run").mkdir()
    trainer = Trainer(settings, prepare(settings.data), place / "run")
    trainer.learn(trainer._take(lambda: False, True))
    trainer.save()
    (place / "memory.lmdb").unlink()
    with pytest.raises(StoreError, match="its file is not there any more"):  # nor written on into a file that nobody sees
        trainer.save()
    with pytest.raises(StoreError, match="is not there"):
        Trainer(settings, prepare(settings.data), place / "run")
    Outside(f"lmdb:{place / 'memory.lmdb'}", "another", 4, "space").begin()
    with pytest.raises(ConfigError, match="lost what this run blended into it; put it back"):
        Trainer(settings, prepare(settings.data), place / "run")


def test_a_store_of_somebody_else_is_not_begun_with(place: Path) -> None:
    settings = given(place, "run", {**CMS, "store": f"lmdb:{place / 'memory.lmdb'}"})
    train_online(settings, until_empty=True)
    shutil.rmtree(place / "run")
    with pytest.raises(ConfigError, match=r"holds 40 ids already; go on with --resume, empty it with --overwrite"):
        train_online(settings, until_empty=True)
    assert train_online(settings, overwrite=True, until_empty=True).rows == N


@pytest.mark.parametrize(
    ("change", "synergy", "message"),
    [
        ({"ranking": "apart"}, CMS, "synergy.store: must lie outside the model for online.ranking apart"),
        ({"ranking": "apart"}, {"cts": {}}, "online.ranking: apart needs a ranking model"),
        ({}, CMS, "online.ranking: must be apart for a ranking model in a process of its own"),
    ],
)
def test_what_cannot_be_apart_is_said(place: Path, change: dict[str, Any], synergy: dict[str, Any], message: str) -> None:
    role: Any = "ranking" if not change else "two-tower"
    with pytest.raises((ConfigError, DataError), match=message):
        train_online(given(place, "run", synergy, **change), role=role, until_empty=True)


def _stumble(settings: Config, role: Any) -> None:
    """A trainer that is thrown away a few batches after its last checkpoint, again and again."""
    folder = Path(settings.output) / ("ranking" if role == "ranking" else "")
    folder.mkdir(parents=True, exist_ok=True)
    dataset, random = prepare(settings.data), np.random.default_rng(0)
    rows: Any = True
    while rows:
        trainer = Trainer(settings, dataset, folder, role=role, lockstep=True)
        for k in range(int(random.integers(1, 12))):
            rows = trainer._take(lambda: False, True)
            if rows:
                trainer.learn(rows)
            if k == 2:
                trainer.save()


def _contents(path: Path) -> dict[bytes, dict[bytes, bytes]]:
    """Every store of a file, whole."""
    file = LmdbFile(path)
    with file.env.begin() as top:
        names = [bytes(name) for name, _ in top.cursor()]
    found = {}
    for name in names:
        held = file.env.open_db(name)
        with file.env.begin(db=held) as transaction:
            found |= {(name + key): bytes(value) for key, value in transaction.cursor()}
    return found  # type: ignore[return-value]
