"""Processes in parallel, with a worker that needs no torch: it says two steps, and does what its config's name says."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from prerank.config import parse
from prerank.leaderboard.pool import Job, Watcher, run, seconds_left
from prerank.leaderboard.state import State, known

WORKER = """
import json, os, pathlib, signal, sys, time
raw = json.loads(sys.stdin.readline())
folder = pathlib.Path(raw["output"])
print(json.dumps({"epoch": 1, "done": 0.5}), flush=True)
print(json.dumps({"ended": 1, "auc": 0.75, "logloss": 0.5}), flush=True)
if raw["name"] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if raw["name"] == "crash":
    sys.exit("a bug of ours")
if raw["name"] == "slow":
    signal.signal(signal.SIGTERM, lambda *_: ((folder / "checkpointed").touch(), sys.exit(130)))
    for _ in range(3000):
        time.sleep(0.01)
(folder / "leaderboard.json").write_text(json.dumps({"status": "finished", "why": None, "measured": {}}))
"""


class Seen(Watcher):
    def __init__(self) -> None:
        self.ends: dict[str, State] = {}
        self.most = self.now = 0
        self.aucs: list[float] = []

    def started(self, job):
        self.now += 1
        self.most = max(self.most, self.now)

    def epoch(self, job, event):
        self.aucs.append(event["auc"])

    def ended(self, job, state):
        self.now -= 1
        self.ends[job.name] = state


@pytest.fixture
def job(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)

    def made(name: str, seed: int = 0) -> Job:
        return Job(name, seed, parse({"name": name, "output": str(tmp_path / f"{name}-{seed}")}))

    return made


def command(tmp_path: Path) -> list[str]:
    return [sys.executable, str(tmp_path / "worker.py")]


def test_all_are_done_so_many_at_a_time(job, tmp_path):
    seen = Seen()
    run([job("fine", seed) for seed in range(5)], 2, seen, command(tmp_path))
    assert {state.status for state in seen.ends.values()} == {"finished"}
    assert (len(seen.ends), seen.most) == (5, 2)
    assert seen.aucs == [0.75] * 5


def test_one_that_dies_is_told_and_the_others_go_on(job, tmp_path):
    seen = Seen()
    run([job("killed"), job("crash"), job("fine")], 1, seen, command(tmp_path))
    assert seen.ends["fine #0"].status == "finished"
    assert seen.ends["killed #0"].why == "killed by SIGKILL: nothing was said"
    assert seen.ends["crash #0"].why == "ended with status 1: a bug of ours"
    again = known(tmp_path / "crash-0")
    assert again is not None
    assert not again.final  # tried again by the next call


def test_interrupted_it_lets_the_running_ones_write_their_checkpoints(job, tmp_path):
    class Impatient(Seen):
        def epoch(self, job, event):
            raise KeyboardInterrupt

    begun = time.monotonic()
    slow = job("slow")
    with pytest.raises(KeyboardInterrupt):
        run([slow, job("fine")], 1, Impatient(), command(tmp_path))
    assert time.monotonic() - begun < 20
    assert slow.process.poll() is not None
    assert known(tmp_path / "slow-0") is None
    assert not (tmp_path / "fine-0").exists()


def test_time_left_is_the_rest_over_the_processes(job):
    jobs = [job("a", 1), job("b", 0), job("c", 0)]
    assert seconds_left([], jobs, {}, 2) is None
    assert seconds_left([], jobs, {"a": 10.0, "b": 20.0}, 2) == (10 + 20 + 15) / 2  # c: the mean of the others
    running = job("a", 2)
    running.begun = time.monotonic() - 4
    assert seconds_left([running], [], {"a": 10.0}, 4) == pytest.approx(6, abs=0.5)
    running.epoch, running.done = 3, 0.5  # two and a half epochs of ten
    assert seconds_left([running], [], {"b": 100.0}, 1) == pytest.approx(12, abs=2)
    assert seconds_left([running], [], {"a": 1.0}, 1) == pytest.approx(12, abs=2)  # longer than it ever took: by its epochs


def test_a_state_that_cannot_be_read_counts_as_none(tmp_path):
    assert known(tmp_path) is None
    for text in ("", "{", '{"status": "finished", "more": 1}'):
        (tmp_path / "leaderboard.json").write_text(text)
        assert known(tmp_path) is None
    State("diverged", "why").write(tmp_path)
    assert known(tmp_path) == State("diverged", "why")
