"""The stream's trainer predicts what `prerank replay` predicts, learns each row once through any crash, and never stops for a bad row."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
import torch
import yaml
from safetensors.torch import load_file

from prerank import build
from prerank.config import ConfigError, dump
from prerank.data import DataError, prepare
from prerank.online import Trainer, train_online
from prerank.online.catalogue import Catalogue
from prerank.online.columns import Columns
from prerank.schema import FIRST, UNKNOWN
from prerank.serving import Request, Scorer
from prerank.serving.generation import open_current
from prerank.stream import Impression, LogError, Row, Source, open_log
from prerank.training.lock import FolderInUseError, locked
from prerank.training.online import in_time, stream
from tests.online.world import BEGIN, ITEMS, N, config, fill, frame, messages


@pytest.fixture
def place(tmp_path: Path) -> Path:
    log = frame()
    log.write_parquet(tmp_path / "log.parquet")
    fill(tmp_path, log)
    return tmp_path


def checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    current = folder / "checkpoint" / (folder / "checkpoint/current").read_text().strip()
    return load_file(current / "tensors.safetensors"), json.loads((current / "state.json").read_text())


@pytest.mark.parametrize("synergy", [None, {"cts": {}, "cms": {"ranker": {"name": "mlp", "hidden": [8]}}}])
def test_it_predicts_what_a_replay_of_the_log_predicts(place: Path, monkeypatch: pytest.MonkeyPatch, synergy: Any) -> None:
    given = config(place, synergy=synergy, **{"training.dedup": False, "online.recall": None})  # the same order of additions
    dataset = prepare(given.data)
    torch.manual_seed(0)
    model = build.model(given.model, dataset.schema, dataset.sizes, given.synergy)
    ranker = None if synergy is None else build.beside(given.synergy.cms, dataset.schema, dataset.sizes)  # type: ignore[union-attr]
    order = in_time(dataset)
    (place / "replay").mkdir()
    objective = build.objective(given.objective, dataset.schema)
    expected = stream(model, objective, dataset, order, given.training, place / "replay", ranker=ranker).logits

    (place / "run").mkdir()
    trainer = Trainer(given, dataset, place / "run", lockstep=True)
    logits: list[np.ndarray] = []
    monkeypatch.setattr(trainer.running, "add", lambda z, y: logits.append(z))
    trainer.run(lambda: False, until_empty=True)
    same = order.test // 64 * 64  # a replay's batches end at the split; up to there both see the same ones
    np.testing.assert_allclose(np.concatenate(logits)[:same], expected[:same], atol=1e-5)


def test_it_learns_and_shuffled_labels_are_not_learned(place: Path) -> None:
    found = train_online(config(place, **{"online.window": 1000}), until_empty=True)
    assert found.rows == N
    assert found.metrics is not None
    assert found.metrics["click"]["auc"] > 0.75
    assert 0.8 < found.metrics["click"]["calibration"] < 1.25
    line = json.loads((place / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert (line["rows"], line["lag"], line["skipped"]) == (N, 0, 0)


def test_going_on_ends_bit_for_bit_where_an_uninterrupted_run_ends(place: Path) -> None:
    synergy = {"cts": {}, "cms": {"ranker": {"name": "mlp", "hidden": [8]}}}
    given = config(place, synergy=synergy)
    train_online(given, lockstep=True, until_empty=True)
    straight, told = checkpoint(place / "run")
    again = config(place, output=str(place / "again"), synergy=synergy)
    dataset = prepare(again.data)
    random = np.random.default_rng(0)
    while True:  # a trainer that is thrown away a few batches after its last checkpoint, again and again
        trainer = Trainer(again, dataset, place / "again", lockstep=True)
        (place / "again").mkdir(exist_ok=True)
        for k in range(int(random.integers(1, 12))):
            rows = trainer._take(lambda: False, True)
            if rows:
                trainer.learn(rows)
            if k == 2:
                trainer.save()
        if not rows:
            break
    trainer.save()
    broken, state = checkpoint(place / "again")
    assert state["positions"] == told["positions"]
    assert state["rows"] == told["rows"] == N // 64 * 64
    assert broken.keys() == straight.keys()
    for name, tensor in straight.items():
        assert torch.equal(tensor, broken[name]), name


def test_a_killed_process_loses_nothing_and_learns_nothing_twice(place: Path) -> None:
    straight = config(place, output=str(place / "straight"))
    train_online(straight, lockstep=True, until_empty=True)
    given = config(place, **{"online.checkpoint": "0.02s"})
    (place / "online.yaml").write_text(dump(given))
    command = [sys.executable, "-m", "prerank", "online", "-c", str(place / "online.yaml"), "--resume", "--lockstep", "-q", "--until-empty"]
    for _ in range(3):
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
            begun = (place / "run/checkpoint/current").exists() and (place / "run/checkpoint/current").read_text()
            deadline = time.monotonic() + 120
            while process.poll() is None and time.monotonic() < deadline:
                now = (place / "run/checkpoint/current").exists() and (place / "run/checkpoint/current").read_text()
                if now and now != begun:
                    break
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
    train_online(given, resume=True, lockstep=True, until_empty=True)
    (a, told), (b, state) = checkpoint(place / "straight"), checkpoint(place / "run")
    assert state["positions"] == told["positions"]
    assert state["rows"] == told["rows"]
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_rows_that_come_twice_are_learned_once(place: Path) -> None:
    log = open_log(f"sqlite:///{place / 'rows.db'}")
    log.append(messages(frame().tail(100), N - 100))
    log.close()
    assert train_online(config(place), until_empty=True).rows == N


def test_a_bad_row_is_skipped_and_counted(place: Path) -> None:
    log = open_log(f"sqlite:///{place / 'rows.db'}")
    more = [json.loads(m) for m in messages(frame().head(6), N)]
    more[1]["impression"]["item"] = "a word"
    more[2]["impression"]["features"]["tab"] = [1, 2]
    more[3]["labels"] = {"view": 1.0}
    log.append([msgspec.json.encode(m) for m in more] + [b"{", b'{"type": "row"}'])
    log.close()
    said: list[str] = []
    found = train_online(config(place), until_empty=True, say=said.append)
    assert (found.rows, found.skipped) == (N + 3, 5)  # two entries of them are no rows at all
    assert any(line.startswith("skipped 2 entries that are no rows") for line in said)
    assert any(line.startswith("skipped 3 of ") for line in said)


def test_new_items_are_served_and_a_growing_vocabulary_learns_them(place: Path) -> None:
    new = frame(seed=3).with_columns(item=pl.col("item") + 1000, ts=pl.col("ts") + 1000 * N)
    fill(place, new, N)
    given = config(place, **{"data.growth": {"item": {"capacity": 100, "admit_after": 2, "expire_after": "30d"}},
                             "online.publish": {"folder": str(place / "generations"), "every": "1h"}})  # fmt: skip
    found = train_online(given, until_empty=True)
    assert found.published == 1
    generation = open_current(place / "generations")
    assert len(generation.item_ids) == 2 * ITEMS
    scorer = Scorer(generation, build.served)
    ids = list(range(ITEMS)) + [1000 + i for i in range(ITEMS)]
    (answer,) = scorer.score([Request(user=3, candidates=ids, context={"tab": 1})])
    scores = dict(zip(answer.items, answer.scores, strict=True))
    assert not answer.missing
    rate = dict(new.group_by("item").agg(pl.col("click").mean()).rows())
    assert np.corrcoef([scores[i] for i in rate], list(rate.values()))[0, 1] > 0.5


def test_a_stream_of_which_nothing_can_be_learned_is_refused(place: Path) -> None:
    log = open_log(f"sqlite:///{place / 'others.db'}")
    log.append([m.replace(b'"click"', b'"view"') for m in messages(frame().head(100))])
    log.close()
    with pytest.raises(DataError, match=r"label waiting must wait for it \(--kind click=..\); it waits for view"):
        train_online(config(place, **{"online.rows": f"sqlite:///{place / 'others.db'}"}), until_empty=True)


def test_a_run_is_not_replaced_by_one_that_cannot_be(place: Path) -> None:
    train_online(config(place), until_empty=True)
    with pytest.raises(ConfigError, match=r"set model\.id_history to false"):
        train_online(config(place, **{"model.id_history": True}), overwrite=True, until_empty=True)
    with pytest.raises(ConfigError, match="is the output folder itself"):
        train_online(config(place, **{"online.start": str(place / "run")}), overwrite=True, until_empty=True)
    assert train_online(config(place), resume=True, until_empty=True).rows == N


def test_two_trainers_do_not_publish_into_one_folder(place: Path) -> None:
    given = config(place, **{"online.publish": {"folder": str(place / "generations")}})
    with locked(place / "generations" / ".publisher"), pytest.raises(FolderInUseError, match="another training is running"):
        train_online(given, until_empty=True)


def test_resuming_needs_the_same_run(place: Path) -> None:
    train_online(config(place), until_empty=True)
    with pytest.raises(ConfigError, match="holds a run already; continue it with --resume"):
        train_online(config(place), until_empty=True)
    with pytest.raises(ConfigError, match="was started with another 'training' section"):
        train_online(config(place, **{"training.batch_size": 32}), resume=True, until_empty=True)
    assert train_online(config(place), resume=True, until_empty=True).rows == N
    assert train_online(config(place), overwrite=True, until_empty=True).rows == N


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"online": None}, "the config has no such section"),
        ({"model.id_history": True}, "id_history: a stream does not take it"),
        ({"training.rehearsal": 1}, r"training\.rehearsal: a stream does not take it: .*; got 1$"),
        ({"online.start": "nowhere"}, "online.start 'nowhere': its weights cannot be taken"),
    ],
)
def test_what_a_stream_cannot_do_is_said(place: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train_online(config(place, **change), until_empty=True)


def test_on_the_command_line(place: Path) -> None:
    (place / "online.yaml").write_text(yaml.safe_dump(yaml.safe_load(dump(config(place)))))
    command = [sys.executable, "-m", "prerank", "online", "-c", str(place / "online.yaml"), "--until-empty", "--metrics-port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{N:,} rows in" in done.stdout
    assert "metrics: http://127.0.0.1:" in done.stderr
    assert "AUC" in done.stderr
    assert BEGIN > 0


def test_a_partition_has_one_trainer(place: Path) -> None:
    log = open_log(f"sqlite:///{place / 'rows.db'}")
    log.claim("two-tower:stream", 0, "another machine:elsewhere")
    with pytest.raises(LogError, match="partition 0 belongs to 'another machine:elsewhere' in group 'two-tower:stream'"):
        train_online(config(place), until_empty=True)
    log.release("two-tower:stream", 0, "another machine:elsewhere")
    assert train_online(config(place), resume=True, until_empty=True).rows == N


def test_a_row_from_further_back_than_memories_is_left_alone(place: Path) -> None:
    log = open_log(f"sqlite:///{place / 'rows.db'}")
    log.append([m.replace(b'"delay":0', b'"delay":960000') for m in messages(frame().head(7), N)])
    log.close()
    found = train_online(config(place), until_empty=True)
    assert (found.rows, found.late) == (N, 7)


def test_users_are_encoded_once_for_what_they_were_served_as_and_nobody_is_somebody_unknown(place: Path) -> None:
    given = config(place)
    columns = Columns(Catalogue(prepare(given.data)), given.data)
    shown = [(3, 0), (3, 0), (3, 1), (None, 1), (None, 1), (4, 0)]
    rows = [Row(impression=Impression(request=n, user=user, item=7, ts=BEGIN, features={"tab": tab}), labels={"click": 0.0}, delay=0,
                appended=BEGIN, source=Source(n, 0)) for n, (user, tab) in enumerate(shown)]  # fmt: skip
    batch = columns.batch(rows)
    assert batch.user_index.tolist() == [0, 0, 1, 2, 2, 3]
    assert batch.item_index.squeeze(1).tolist() == [0] * 6
    assert batch.user["user"].tolist()[2] == UNKNOWN
    assert batch.user["user"][0] == batch.user["user"][1] >= FIRST
    tab = columns.catalogue.encoders["tab"]
    assert batch.user["tab"].tolist() == tab.encode([0, 1, 1, 0]).tolist()
    assert Columns(Catalogue(prepare(given.data)), given.data, dedup=False).batch(rows).user_index.tolist() == list(range(6))


def test_a_log_that_is_not_there_has_no_end(place: Path) -> None:
    with pytest.raises(LogError, match=r"nothere.db': there is no such file"):
        train_online(config(place, **{"online.rows": f"sqlite:///{place / 'nothere.db'}"}), until_empty=True)
    assert not (place / "nothere.db").exists()
    assert not (place / "run/config.yaml").exists()
