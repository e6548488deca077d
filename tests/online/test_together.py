"""Several processes learn as one that sees all their rows, end with the same weights, and lose nothing when one is killed."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from prerank.config import Config, ConfigError, Recall, dump
from prerank.data import prepare
from prerank.online import train_online
from prerank.online.intake import part_of
from prerank.online.roles import check_together
from prerank.serving.generation import open_current
from prerank.store import LmdbFile
from prerank.stream import open_log
from tests.online.world import BEGIN, ITEMS, N, config, frame, messages

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["prerank.online", "tests.online.world", "torch._dynamo", "torch.distributed"])  # what a process begins with
CMS = {"cts": {}, "cms": {"ranker": {"name": "mlp", "hidden": [8]}}}


def given(place: Path, name: str = "run", **changes: Any) -> Config:
    """Of the log of two partitions."""
    made = config(place, output=str(place / name), **{"online.rows": f"sqlite:///{place / 'two.db'}", **changes})
    assert made.online is not None
    return made.model_copy(update={"online": made.online.model_copy(update={"recall": Recall(tick="1m", keep="2h")})})


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """32 rows of the log go to one partition, the next 32 to the other."""
    log = frame()
    log.write_parquet(tmp_path / "log.parquet")
    fill(tmp_path / "two.db", messages(log), lambda n: n // 32 % 2)
    prepare(config(tmp_path).data)
    return tmp_path


def fill(path: Path, rows: list[bytes], partition: Callable[[int], int], partitions: int = 2) -> None:
    log = open_log(f"sqlite:///{path}?partitions={partitions}")
    for p in range(partitions):
        log.append([m for n, m in enumerate(rows) if partition(n) == p], partition=p)
    log.close()


def process(rank: int, port: int, given: Config, options: dict[str, Any]) -> None:
    """One of two, as torchrun would start it."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    train_online(given, resume=True, **{"until_empty": True, **options})


def begin(given: Config, **options: Any) -> list[Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [FORKS.Process(target=process, args=(rank, port, given, options), daemon=True) for rank in (0, 1)]
    for one in both:
        one.start()
    return both


def run(given: Config, **options: Any) -> None:
    ended(begin(given, **options))


def ended(both: list[Any]) -> None:
    for one in both:
        one.join(120)
    assert [one.exitcode for one in both] == [0, 0]


def checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    current = folder / "checkpoint" / (folder / "checkpoint/current").read_text().strip()
    return load_file(current / "tensors.safetensors"), json.loads((current / "state.json").read_text())


def test_two_processes_learn_what_one_learns_from_both_batches(place: Path) -> None:
    run(given(place, "two", **{"training.batch_size": 32}), lockstep=True)
    fill(place / "one.db", messages(frame()), lambda n: 0, partitions=1)
    train_online(given(place, "one", **{"online.rows": f"sqlite:///{place / 'one.db'}"}), lockstep=True, until_empty=True)
    (a, said), (b, told) = checkpoint(place / "two"), checkpoint(place / "one")
    assert said["rows"] == told["rows"] == N // 64 * 64
    assert said["batches"] == told["batches"] == N // 64
    for name, tensor in b.items():
        if not name.startswith("rng"):
            torch.testing.assert_close(a[name], tensor, rtol=0, atol=1e-5 if name.startswith("running") else 1e-6, msg=name)


def test_whichever_is_killed_nothing_is_lost_and_nothing_learned_twice(place: Path) -> None:
    """One partition is 25 minutes ahead of the other: a row of it must not see, when it comes again, what the other has blended since."""
    fill(place / "apart.db", messages(frame()), lambda n: n // (N // 2))
    change = {"training.batch_size": 32, "online.rows": f"sqlite:///{place / 'apart.db'}"}
    straight = given(place, "straight", synergy={**CMS, "store": f"lmdb:{place / 'straight.lmdb'}"}, **change)
    run(straight, lockstep=True)
    again = given(place, "again", synergy={**CMS, "store": f"lmdb:{place / 'again.lmdb'}"}, **change, **{"online.checkpoint": "0.02s"})
    marker = place / "again/checkpoint/current"
    for victim in (1, 0):
        begun = marker.exists() and marker.read_text()
        both = begin(again, lockstep=True)
        deadline = time.monotonic() + 120
        while all(one.is_alive() for one in both) and time.monotonic() < deadline:
            if marker.exists() and marker.read_text() != begun:
                break
            time.sleep(0.001)
        os.kill(both[victim].pid, signal.SIGKILL)
        both[1 - victim].join(30)
        assert both[1 - victim].exitcode == 1, "who is left must not wait for ever, nor go on alone"
    run(again, lockstep=True)
    (a, told), (b, state) = checkpoint(place / "straight"), checkpoint(place / "again")
    assert state["positions"] == told["positions"]
    assert state["rows"] == told["rows"] == N // 64 * 64
    assert state["known"] == BEGIN + 1000 * (N // 2 + N // 64 * 32 - 1), "what the one knows the other's blends must not lie before"
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name
    assert contents(place / "straight.lmdb") == contents(place / "again.lmdb")


def contents(path: Path) -> dict[bytes, bytes]:
    """Every store of a file, whole."""
    file = LmdbFile(path)
    found: dict[bytes, bytes] = {}
    with file.env.begin() as top:
        names = [bytes(name) for name, _ in top.cursor()]
    for name in names:
        held = file.env.open_db(name)
        with file.env.begin(db=held) as transaction:
            found |= {name + bytes(key): bytes(value) for key, value in transaction.cursor()}
    return found


def test_a_partition_that_runs_dry_keeps_nobody(place: Path) -> None:
    """Nearly all rows lie in one partition, and nobody waits for the other; its bad row is told of, and new items are published. A signal
    to one process ends both."""
    rows = messages(frame().with_columns(item=frame()["item"] + 1000))
    rows[5] = rows[5].replace(b'"item":', b'"item":"x",  "was":')
    fill(place / "dry.db", rows, lambda n: int(n < 40))
    made = given(place, **{"online.rows": f"sqlite:///{place / 'dry.db'}", "online.checkpoint": "0.1s", "online.wait": "30s",
                           "training.batch_size": 8, "model.norm": True,
                           "online.publish": {"folder": str(place / "generations"), "every": "1h"}})  # fmt: skip
    both = begin(made, until_empty=False)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and all(one.is_alive() for one in both):
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # a checkpoint that is being replaced
            if checkpoint(place / "run")[1]["rows"] == N - 1:
                break
        time.sleep(0.1)
    else:
        raise AssertionError("whoever has nothing keeps the other")
    os.kill(both[1].pid, signal.SIGTERM)
    ended(both)
    _, state = checkpoint(place / "run")
    assert (state["rows"], state["skipped"], state["batches"]) == (N - 1, 1, (N - 40) // 8)
    assert len(open_current(place / "generations").item_ids) == 2 * ITEMS
    assert json.loads((place / "run/metrics.jsonl").read_text().splitlines()[-1])["lag"] == 0


def test_more_processes_go_on_where_one_stopped(place: Path) -> None:
    assert train_online(given(place), until_empty=True).rows == N
    fill(place / "two.db", messages(frame(seed=3), N), lambda n: n // 32 % 2)
    run(given(place))
    _, state = checkpoint(place / "run")
    assert state["rows"] == 2 * N
    assert {p: offset for p, (offset, *_) in state["positions"].items()} == {"0": 2 * 1504, "1": 2 * 1496}


@pytest.mark.slow
def test_torchrun_starts_all_again_when_one_is_killed(place: Path) -> None:
    (place / "online.yaml").write_text(dump(given(place, **{"training.batch_size": 8, "online.checkpoint": "0.05s"})))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "2",
               "-m", "prerank", "online", "-c", str(place / "online.yaml"), "--resume", "--until-empty"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as torchrun:
        deadline = time.monotonic() + 120
        while not (place / "run/checkpoint/current").exists() and torchrun.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        both = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
        os.kill(int(both[1]), signal.SIGKILL)
        said, complaints = torchrun.communicate(timeout=120)
    assert torchrun.returncode == 0, complaints
    assert said.count(f"{N:,} rows in") == 1, "one process speaks"
    assert complaints.count("resumed after") == 1
    assert "error: process 0 of 2: another process is gone" in complaints


def test_partitions_are_shared_out(place: Path) -> None:
    log = open_log(f"sqlite:///{place / 'five.db'}?partitions=5")
    assert [list(part_of(log, None, rank, 2)) for rank in (0, 1)] == [[0, 2, 4], [1, 3]]
    assert list(part_of(log, 3, 0, 1)) == [3]
    with pytest.raises(ConfigError, match=r"online.rows: must have a partition for each of 6 processes; '.*' has 5"):
        part_of(log, None, 0, 6)
    log.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"online.partition": 1}, "online.partition: must be left out with 2 processes, which share all; got 1"),
        ({"synergy": CMS}, r"synergy.store: must lie outside the model for 2 processes, lmdb:PATH or redis://..; got memory"),
        ({"data.growth": {"item": {"capacity": 100, "admit_after": 2, "expire_after": "30d"}}}, "data.growth: cannot be combined with 2"),
        ({"online.remember": 100}, "online.remember: must be at least the rows of 2 batches, 128; got 100"),
    ],
)
def test_what_several_processes_cannot_do_is_said(place: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_together(given(place, **change), 2)
    check_together(given(place, **change), 1)
