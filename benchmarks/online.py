"""The living system measured: how fresh, how fast, and what is left of it after 50 kills.

    python -m benchmarks.online freshness [--rate 2000]     event to what a server has in force, at that many events a second
    python -m benchmarks.online throughput [--rows 400000]  rows a CPU second of the two-tower trainer, by what of CS3 is on
    python -m benchmarks.online chaos [--rounds 50]         kill -9 of any process while events come; then everything is counted
    python -m benchmarks.online lockstep [--rounds 50]      kill -9 of a lockstep trainer; its end against a run never killed

Each writes its part of results/online.json and leaves the others alone. Events come from users of the simulated world; label waiting,
both trainers (CS3 whole, memories in LMDB) and the server are processes of their own.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks import record
from benchmarks.system import System, Users
from prerank.config import dump
from prerank.online import train_online
from prerank.serving import Client
from prerank.store import LmdbFile
from prerank.stream import Source
from prerank.training import checkpoint

OUT = Path("results/online.json")
TRAINERS = ("two-tower", "ranking")


def freshness(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Of each row: seconds from the event that made it ready until a server had in force what learned from it."""
    system = System(work, options.users, options.items, options.seed)
    system.begin(("waiting", *TRAINERS))
    _until(lambda: (work / "generations/current.json").exists() or _nudge(system), system)
    system.begin(("server",))
    forces: list[tuple[float, int, int]] = []
    stop = threading.Event()
    with Client(system.url()) as client:
        client.wait_until_ready()
        watching = threading.Thread(target=_watch, args=(client, forces, stop))
        watching.start()
        before = {name: system.spent(name) for name in system.processes}
        with Users(system, options.rate) as users:
            for _ in range(int(options.seconds)):
                time.sleep(1)
                system.check()
        time.sleep(8)
        spent = {name: round(system.spent(name) - before[name], 1) for name in system.processes}
        stop.set()
        watching.join()
    system.stop()
    found = _delays(system, forces)
    quantiles = {f"p{q}": round(float(np.percentile(found, q)), 2) for q in (1, 10, 50, 90, 99, 99.9)}
    counts, edges = np.histogram(found, bins=np.arange(0, 20.5, 0.5))
    return {
        "events_per_second": round((users.sent + users.clicks) / users.seconds), "asked_for": options.rate,
        "seconds": round(users.seconds, 1), "rows": len(found), "seconds_to_in_force": quantiles,
        "max": round(float(found.max()), 2), "cpu_seconds": spent,
        "states": len(forces), "histogram": {"edges": edges.tolist(), "rows": counts.tolist()},
    }  # fmt: skip


def _delays(system: System, forces: Sequence[tuple[float, int, int]]) -> Any:
    """[rows] seconds; rows that went out after the last state are left out."""
    updates = [u for line in system.told() for u in line.get("updates", [])]
    placed = {(int(number), int(sequence)): tuple(source) for _, number, sequence, _, source in updates}
    seen = sorted((at, placed[state]) for at, *rest in forces if (state := tuple(rest)) in placed)
    times, ends = [at for at, _ in seen], [Source(*source) for _, source in seen]
    found, k = [], 0
    for row in system.rows():
        while k < len(ends) and ends[k] < row.source:
            k += 1
        if k == len(ends):
            break
        found.append(times[k] - row.appended / 1000)
    return np.array(found)


def _watch(client: Client, forces: list[tuple[float, int, int]], stop: threading.Event) -> None:
    """When each state was first seen in force, asked 20 times a second."""
    last = None
    while not stop.is_set():
        health = client.health()
        state = (health["generation"], health["sequence"])
        if state != last:
            forces.append((time.time(), *state))
            last = state
        time.sleep(0.05)


def _nudge(system: System) -> bool:
    """Nothing is published before anything was learned: a few users begin."""
    with Users(system, 200):
        time.sleep(1)
    return False


def throughput(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """A trainer alone, with as many rows as it can take."""
    system = System(work, options.users, options.items, options.seed)
    system.begin(("waiting",))
    with Users(system, 50_000) as users:
        while users.sent < options.rows:
            time.sleep(0.2)
            system.check()
    _until(lambda: len(system.rows()) >= users.sent, system)
    system.stop()
    found: dict[str, Any] = {}
    assert system.config.online is not None
    online = system.config.online.model_copy(update={"publish": None, "start": None, "ranking": "beside"})
    synergy = system.config.synergy
    assert synergy is not None
    kinds: dict[str, dict[str, Any]] = {
        "backbone": {"synergy": None}, "cas + cts": {"synergy": synergy.model_copy(update={"cms": None, "store": "memory"})},
        "cs3, memory from LMDB": {"online": online.model_copy(update={"ranking": "apart"})},
        "cs3, ranking model beside": {"synergy": synergy.model_copy(update={"store": "memory"})},
    }  # fmt: skip
    for name, changes in kinds.items():
        config = system.config.model_copy(update={"online": online, "output": str(work / name.replace(" ", "-")), **changes})
        (work / "one.yaml").write_text(dump(config))
        command = [sys.executable, "-m", "benchmarks.online", "one", str(work / "one.yaml")]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
        found[name] = json.loads(said)
    return found


def one(path: str) -> None:
    """In a process of its own: the rate of a trainer that takes what is there."""
    from prerank.config import load

    marks: list[tuple[float, int]] = []
    train_online(load(path), until_empty=True, overwrite=True, told=lambda told: marks.append((time.process_time(), told.rows)))
    (first, rows), (last, all_rows) = marks[0], marks[-1]
    n, seconds = all_rows - rows, last - first
    print(json.dumps({"rows": n, "cpu_seconds": round(seconds, 2), "rows_per_cpu_second": round(n / seconds)}))


def chaos(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Kill whom chance names, again and again; at the end everything that was acknowledged was learned once.

    Beside them two trainers of the same rows are never killed. Batches are small, so that what waits after a kill makes as many steps.
    """
    system = System(work, options.users, options.items, options.seed, begun=False, batch=128)
    system.run("steady", options.users, options.items, False, ranking="apart")
    chance, steady = random.Random(options.seed), ("two-tower, never killed", "ranking, never killed")
    system.begin(("waiting", *TRAINERS, *steady))
    _until(lambda: (work / "generations/current.json").exists() or _nudge(system), system)
    system.begin(("server",))
    killed: Counter[str] = Counter()
    with Users(system, options.rate):
        for _ in range(options.rounds):
            time.sleep(chance.uniform(0.5, 5.0))
            system.check()
            name = chance.choice(("waiting", "server", *TRAINERS))
            system.kill(name)
            killed[name] += 1
            system.begin((name,))
        time.sleep(5)
    places = {"two-tower": "online", "ranking": "online/ranking", steady[0]: "steady", steady[1]: "steady/ranking"}
    _until(lambda: all(line and line[-1]["lag"] == 0 and line[-1]["rows"] + line[-1]["late"] >= system.shown
                       for line in map(system.told, places.values())), system, 300)  # fmt: skip
    system.stop()
    rows = system.rows()
    found: dict[str, Any] = {"rounds": options.rounds, "killed": dict(killed), "impressions": system.shown, "rows": len(rows),
                             "distinct": len({(r.impression.request, r.impression.item) for r in rows}),
                             "clicked_rows": int(sum(r.labels["click"] for r in rows))}  # fmt: skip
    for role, name in places.items():
        state = checkpoint.load(work / name / "checkpoint")
        assert state is not None
        found[role] = {"learned": state.state["rows"], "skipped": state.state["skipped"], "late": state.state["late"],
                       "batches": state.state["batches"], "auc": system.told(name)[-1]["click"]["auc"]}  # fmt: skip
    found |= {"blended": _blended(work / "online.lmdb"), "blended_never_killed": _blended(work / "steady.lmdb"),
              "auc_difference": found["two-tower"]["auc"] - found[steady[0]]["auc"]}  # fmt: skip
    return found


def _blended(path: Path) -> dict[str, int]:
    """{store: vectors that were ever blended into it}"""
    file, found = LmdbFile(path), dict[str, int]()
    with file.env.begin() as top:
        names = [bytes(name) for name, _ in top.cursor() if bytes(name).startswith(b"prerank")]
    for name in names:
        with file.env.begin(db=file.env.open_db(name)) as transaction:
            counts = [int.from_bytes(value[:8], "little") for key, value in transaction.cursor() if len(key) == 8]
            found[name.decode().removeprefix("prerank ")] = sum(counts)
    return found


def lockstep(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """One process with the ranking model beside, memories in LMDB: killed and never killed, bit for bit."""
    system, chance = System(work, options.users, options.items, options.seed, begun=False, batch=256), random.Random(options.seed)
    system.begin(("waiting",))
    with Users(system, 2_000) as users:
        while users.sent < options.rows:
            time.sleep(0.2)
    _until(lambda: len(system.rows()) >= users.sent, system)
    system.stop()
    ends, kills = [], 0
    for name in ("straight", "killed"):
        system.run(name, options.users, options.items, False, checkpoint="0.1s")
        command = [sys.executable, "-m", "prerank", "online", "-c", str(work / f"{name}.yaml"), "--resume", "--lockstep", "-q",
                   "--until-empty"]  # fmt: skip
        ended = False
        while not ended:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            if name == "killed" and kills < options.rounds and _goes_on(work / name, process, chance.randint(1, 2)):
                time.sleep(chance.uniform(0.0, 0.2))
                kills += process.poll() is None
                process.send_signal(signal.SIGKILL)
            ended = process.wait() == 0
            if process.returncode not in (0, -signal.SIGKILL):
                raise RuntimeError(f"a trainer ended with status {process.returncode}")
        found = checkpoint.load(work / name / "checkpoint")
        assert found is not None
        ends.append((found, _contents(work / f"{name}.lmdb")))
    (a, one_store), (b, other_store) = ends
    differ = [name for name in a.tensors if not torch.equal(a.tensors[name], b.tensors[name])]
    return {"rounds": kills, "rows": a.state["rows"], "tensors": len(a.tensors), "tensors_that_differ": len(differ), "first": differ[:3],
            "stored_values": len(one_store), "stored_values_that_differ": sum(one_store[k] != other_store.get(k) for k in one_store)
            + len(other_store.keys() - one_store.keys())}  # fmt: skip


def _goes_on(folder: Path, process: subprocess.Popen[bytes], checkpoints: int) -> bool:
    """Whether a trainer has written so many checkpoints, before it ended."""
    current, before = folder / "checkpoint/current", None
    while process.poll() is None:
        now = current.read_text() if current.exists() else None
        if now != before:
            checkpoints -= before is not None
            before = now
        if checkpoints <= 0:
            return True
        time.sleep(0.002)
    return False


def _contents(path: Path) -> dict[bytes, bytes]:
    file, found = LmdbFile(path), dict[bytes, bytes]()
    with file.env.begin() as top:
        names = [bytes(name) for name, _ in top.cursor()]
    for name in names:
        with file.env.begin(db=file.env.open_db(name)) as transaction:
            found |= {name + bytes(key): bytes(value) for key, value in transaction.cursor()}
    return found


def _until(done: Any, system: System, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        system.check()
        if time.monotonic() > deadline:
            raise RuntimeError(f"the system did not get there in {seconds:.0f} s")
        time.sleep(0.2)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("freshness", "throughput", "chaos", "lockstep", "one"))
    parser.add_argument("config", nargs="?", help="of `one`, which the others call")
    parser.add_argument("--rate", type=float, help="events a second; default 2000, in chaos 500")
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--rows", type=int, help="default 400,000, in lockstep 100,000")
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="folder that stays; default: a temporary one")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    if options.what == "one":
        one(options.config)
        return
    options.rate = options.rate or (500.0 if options.what == "chaos" else 2000.0)
    options.rows = options.rows or (100_000 if options.what == "lockstep" else 400_000)
    torch.set_num_threads(1)
    work = options.work or Path(tempfile.mkdtemp(prefix="prerank-online-"))
    work.mkdir(exist_ok=True)
    found = {"freshness": freshness, "throughput": throughput, "chaos": chaos, "lockstep": lockstep}[options.what](options, work)
    Console().print(found, highlight=False)
    before = json.loads(options.out.read_text())["results"] if options.out.exists() else {}
    record.write(options.out, benchmark="online", seed=options.seed, results={**before, options.what: found})
    if options.work is None:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
