"""The living system as processes for benchmarks: label waiting, both trainers with CS3 on, a server; and users who make events at a rate.

    system = System(Path("work"), users=5_000, items=2_000)
    system.begin(("waiting", "two-tower", "ranking"));  system.kill("ranking");  system.begin(("ranking",));  system.stop()
"""

from __future__ import annotations

import heapq
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from prerank.config import Config, dump, parse
from prerank.datasets import resolve, world
from prerank.datasets.recipe import notes
from prerank.metrics import sigmoid
from prerank.replay import replay
from prerank.stream import Client, Feedback, Impression, Row, Rows, now, open_log
from prerank.training.checkpoint import write_text

WINDOW, LATENESS = "2s", "0.5s"  # how long a click is waited for, and events that are late
GROUPS = [{"match": "*ids*", "lr": 0.05, "rowwise": True}]
MODEL = {"name": "dssm", "hidden": [64, 32], "norm": False, "similarity": "dot", "id_head": 16}
CS3 = {"cas": {}, "cts": {}, "cms": {"ranker": {"name": "dcnv2", "hidden": [64, 32]}}}
TICKS = os.sysconf("SC_CLK_TCK")


def settings(folder: Path, name: str, users: int, items: int, seed: int, batch: int, *, synergy: dict[str, Any], start: Path | None,
             **online: Any) -> Config:  # fmt: skip
    """A run of this name in the folder; the simulated log is shared."""
    log = {"users": users, "items": items, "impressions": 40 * users, "drift": 0.0, "seed": seed, "days": 4}
    return parse({
        "name": name,
        "data": {"recipe": "simulated", "options": log, "labels": {"click": {"column": "click"}}, "width": 16},
        "model": MODEL, "synergy": synergy,
        "training": {"batch_size": batch, "average": 0.95, "threads": 1, "seed": seed, "optimizer": {"lr": 0.002, "groups": GROUPS}},
        "online": {"rows": f"sqlite:///{folder / 'rows.db'}", "wait": "0.2s", "checkpoint": "5s", "recall": {"tick": "4s", "keep": "60s"},
                   **({} if start is None else {"start": str(start)}), **online},
        "output": str(folder / name),
    })  # fmt: skip


class System:
    """See the module's first lines.

    begun   whether trainers begin with what a replay of the log learned
    batch   rows of a batch of theirs, at most
    """

    def __init__(self, folder: Path, users: int, items: int, seed: int = 0, begun: bool = True, batch: int = 1024) -> None:
        self.folder, self.seed, self.batch = folder, seed, batch
        generations = {"folder": str(folder / "generations"), "every": "1s"}
        self.config = self.run("online", users, items, begun, ranking="apart", publish=generations)
        if begun:
            first = self.config.model_copy(update={"online": None, "output": str(folder / "first")})
            assert first.synergy is not None
            replay(first.model_copy(update={"synergy": first.synergy.model_copy(update={"store": "memory"})}), window=None)
        events, rows = f"sqlite:///{folder / 'events.db'}", f"sqlite:///{folder / 'rows.db'}"
        for address in (events, rows):
            open_log(address).close()
        yaml = str(folder / "online.yaml")
        self.verbs = {
            "waiting": ["events", "wait", events, "--to", rows, "--state", str(folder / "labels"), "--kind", f"click={WINDOW}",
                        "--lateness", LATENESS, "--idle", "0.5s", "--dead", f"sqlite:///{folder / 'dead.db'}", "-q"],
            "two-tower": ["online", "-c", yaml, "--resume", "-q"],
            "ranking": ["online", "-c", yaml, "--role", "ranking", "--resume", "-q"],
            "two-tower, never killed": ["online", "-c", str(folder / "steady.yaml"), "--resume", "-q"],
            "ranking, never killed": ["online", "-c", str(folder / "steady.yaml"), "--role", "ranking", "--resume", "-q"],
            "server": ["serve", str(folder / "generations"), "--port", "0", "--follow", "0.2"],
        }  # fmt: skip
        self.parties = self.shown = 0
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.cpu = dict.fromkeys(self.verbs, 0.0)

    def run(self, name: str, users: int, items: int, begun: bool, **online: Any) -> Config:
        """Settings of a run of this system, also written to NAME.yaml."""
        synergy = {**CS3, "store": f"lmdb:{self.folder / name}.lmdb"}
        start = self.folder / "first" if begun else None
        config = settings(self.folder, name, users, items, self.seed, self.batch, synergy=synergy, start=start, **online)
        write_text(self.folder / f"{name}.yaml", dump(config))
        return config

    def begin(self, names: Iterable[str]) -> None:
        for name in names:
            with (self.folder / f"{name}.log").open("a") as log:
                self.processes[name] = subprocess.Popen([sys.executable, "-m", "prerank", *self.verbs[name]], stdout=log,
                                                        stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip

    def kill(self, name: str) -> None:
        """kill -9, and wait until it is gone."""
        self.cpu[name] += self.spent(name)
        self.processes[name].kill()
        self.processes[name].wait()

    def spent(self, name: str) -> float:
        """CPU seconds of a process that runs."""
        try:
            fields = Path(f"/proc/{self.processes[name].pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / TICKS

    def check(self) -> None:
        """Raise RuntimeError when a process has ended."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                last = (self.folder / f"{name}.log").read_text().strip().splitlines() or ["nothing"]
                raise RuntimeError(f"{name} ended with status {process.returncode}: {last[-1]}")

    def stop(self) -> None:
        """As an operator would: SIGTERM, then wait."""
        for name, process in self.processes.items():
            self.cpu[name] += self.spent(name)
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            process.wait(60)
        self.processes.clear()

    def url(self) -> str:
        """Where the server listens."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = re.findall(r"http://\S+", (self.folder / "server.log").read_text())
            if found:
                return str(found[-1]).rstrip(".,;")
            self.check()
            time.sleep(0.1)
        raise RuntimeError("the server did not say where it listens")

    def told(self, name: str = "online") -> list[dict[str, Any]]:
        """A trainer's lines of metrics."""
        path = self.folder / name / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def rows(self) -> list[Row]:
        """Everything that label waiting made."""
        log = open_log(f"sqlite:///{self.folder / 'rows.db'}")
        rows, found = Rows(log), []
        while more := rows.take(10_000):
            found += more
        log.close()
        return [row for row in found if type(row) is Row]


class Users:
    """A thread of users of the simulated world, who make `rate` events a second (impressions and clicks)."""

    def __init__(self, system: System, rate: float) -> None:
        self._system = system
        said = notes(Path(resolve(system.config.data).log or "").parent)
        options = said["options"]
        self._planted = world.plant(options["users"], options["items"], np.random.default_rng(options["seed"]))
        self._intercept, self._rate = said["click_intercept"], rate
        system.parties += 1
        self._party = system.parties  # whose requests have names of their own
        self._random = np.random.default_rng(system.seed + 7 * self._party)
        self._address = f"sqlite:///{system.folder / 'events.db'}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self.sent = self.clicks = 0
        self.seconds = 0.0  # until they were told to stop

    def __enter__(self) -> Users:
        self._begun = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._begun
        self._stop.set()
        self._thread.join()
        self._system.shown += self.sent

    def _live(self) -> None:
        events, waiting = 0, list[tuple[float, int, int]]()
        with Client(self._address, linger=0.05) as client:
            while waiting or not self._stop.is_set():  # whoever has seen something may still click
                at = time.monotonic() - self._begun
                while waiting and waiting[0][0] <= at:
                    _, request, item = heapq.heappop(waiting)
                    client.send(Feedback(request=f"{self._party}-{request}", item=item, ts=now(), kind="click"))
                    events, self.clicks = events + 1, self.clicks + 1
                if not self._stop.is_set() and (due := int(at * self._rate) - events) > 0:
                    events += self._shown(client, min(due, 200), at, waiting)
                else:
                    time.sleep(0.005)
            client.flush()

    def _shown(self, client: Client, count: int, at: float, waiting: list[tuple[float, int, int]]) -> int:
        p, random = self._planted, self._random
        users = np.searchsorted(np.cumsum(p.activity)[:-1], random.random(count))
        items = np.searchsorted(np.cumsum(p.popularity)[:-1], random.random(count))
        scenes, hours = random.integers(0, world.SCENES, count), random.integers(0, world.HOURS, count)
        taste = world.SCALE * np.einsum("nk,nk->n", p.user_vector[users], p.item_vector[items])
        utility = taste + p.item_bias[items] + p.user_bias[users] + p.scene_bias[scenes] + p.hour_bias[hours] + self._intercept
        clicked = random.random(count) < sigmoid(utility)
        ts = now()
        for user, item, scene, hour, click in zip(users, items, scenes, hours, clicked, strict=True):
            features: dict[str, Any] = {"scene": int(scene), "hour": int(hour)}
            client.send(Impression(request=f"{self._party}-{self.sent}", user=int(user) + 1, item=int(item) + 1, ts=ts, features=features))
            if click:
                heapq.heappush(waiting, (at + random.uniform(0.05, 1.0), self.sent, int(item) + 1))
            self.sent += 1
        return count
