"""The whole system on one machine: a world that clicks and drifts, a server, an event log, label waiting, a trainer that publishes.

    report = up(Path("up"), minutes=5)

The server, label waiting and the trainer are processes of their own, the same verbs that a deployment runs; the world is this one. Every
request is also ordered by the first generation, which stays as it was: what learning online is worth is the true click probability of what
is shown, beside that of the frozen model, of the best possible choice, and of a blind one.
"""

from __future__ import annotations

import ctypes
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prerank import build
from prerank.config import ConfigError, dump, parse
from prerank.datasets import resolve
from prerank.online.afresh import afresh
from prerank.online.life import Life
from prerank.online.living import LivingWorld
from prerank.run import train
from prerank.serving import Client, Scorer, export
from prerank.serving.client import ClientError
from prerank.serving.generation import Generation
from prerank.stream import Client as Events
from prerank.training.checkpoint import write_text

WINDOW = "2s"  # how long a click is waited for
LOGGED = 50  # impressions a user in the log of before
GROUPS = [{"match": "*ids*", "lr": 0.05, "rowwise": True}]
MODEL = {"name": "dssm", "hidden": [64, 32], "norm": False, "similarity": "dot", "id_head": 16}


def up(folder: Path, *, minutes: float = 5.0, rate: float = 50.0, drift: float = 1.0, users: int = 2000, items: int = 1000, seed: int = 0,
       retrain: bool = True, overwrite: bool = False, say: Callable[[str], None] = lambda line: None,
       told: Callable[[dict[str, Any]], None] = lambda interval: None) -> dict[str, Any]:  # fmt: skip
    """Prepare, train, start everything, let the world live, stop everything; the report is also in folder/report.json.

    rate      requests a second;  drift   quarter turns of all tastes over the whole time
    retrain   at the end, train the model from scratch on the whole log, to compare with
    told      called every few seconds
    Raises ConfigError, and what training and exporting raise.
    """
    if (folder / "up.yaml").exists():
        if not overwrite:
            raise ConfigError(f"folder '{folder}': holds a system already; replace it with --overwrite, or give another --to")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    say("training the first model on the log of before")
    config = _config(folder, users, items, seed)
    write_text(folder / "up.yaml", dump(config))
    run, _ = train(config.model_copy(update={"online": None, "output": str(folder / "first")}))
    export(run.dataset, run.model, folder=folder / "generations", options=config.model.model_dump(mode="json"), name="up", keep=1)
    frozen = Scorer(Generation(folder / "generations" / "gen-000001"), build.served)
    world = LivingWorld(Path(resolve(config.data).log or "").parent, drift, 60 * minutes, seed=seed + 1)
    intervals: list[dict[str, Any]] = []
    with _processes(folder, say) as (check, url):
        with Client(url) as client, Events(f"sqlite:///{folder / 'events.db'}", linger=0.05) as events:
            life = Life(world, client, events, frozen)
            for interval in life.live(rate, check):
                intervals.append(interval.told())
                told(intervals[-1] | _trainer(folder))
            events.flush()
        time.sleep(3)  # the last windows close, and the trainer learns of them
        trainer = _trainer(folder)
    report = _report(intervals, trainer) | {"freshness": _freshness(folder, life.served)}
    if retrain:
        say("training a model from scratch on the whole log, to compare with")
        kept = [(asked, at) for asked, at in life.kept if at >= report["last"]["from"]]
        report["retrained"] = afresh(config, folder / "retrained", world, kept)
    report |= {"minutes": minutes, "rate": rate, "drift": drift, "users": users, "items": items, "seed": seed}
    write_text(folder / "report.json", json.dumps(report, indent=1))
    return report


def _config(folder: Path, users: int, items: int, seed: int) -> Any:
    log = {"users": users, "items": items, "impressions": LOGGED * users, "drift": 0.0, "seed": seed, "days": 4}
    return parse({
        "name": "up",
        "data": {"recipe": "simulated", "options": log, "labels": {"click": {"column": "click"}}, "width": 16},
        "model": MODEL,
        "training": {"epochs": 3, "batch_size": 256, "average": 0.95, "threads": 1, "optimizer": {"lr": 0.002, "groups": GROUPS}},
        "online": {"rows": f"sqlite:///{folder / 'rows.db'}", "start": str(folder / "first"), "wait": "0.2s", "checkpoint": "5s",
                   "publish": {"folder": str(folder / "generations"), "every": "1s"}},
        "output": str(folder / "online"),
    })  # fmt: skip


@contextmanager
def _processes(folder: Path, say: Callable[[str], None]) -> Iterator[tuple[Callable[[], None], str]]:
    """The server, label waiting and the trainer; what checks that they live, and the server's address."""
    events, rows = f"sqlite:///{folder / 'events.db'}", f"sqlite:///{folder / 'rows.db'}"
    verbs = {
        "server": ["serve", str(folder / "generations"), "--port", "0", "--follow", "0.5"],
        "label waiting": ["events", "wait", events, "--to", rows, "--state", str(folder / "labels"), "--kind", f"click={WINDOW}",
                          "--lateness", "1s", "--idle", "1s", "--dead", f"sqlite:///{folder / 'dead.db'}", "--create", "-q"],
        "trainer": ["online", "-c", str(folder / "up.yaml"), "--resume", "-q"],
    }  # fmt: skip
    logs = {name: folder / f"{name.replace(' ', '-')}.log" for name in verbs}
    running = {}
    for name, verb in verbs.items():
        with logs[name].open("w") as file:
            running[name] = subprocess.Popen([sys.executable, "-m", "prerank", *verb], stdout=file, stderr=subprocess.STDOUT,
                                             preexec_fn=_die_with_parent)  # fmt: skip

    def check() -> None:
        for name, process in running.items():
            if process.poll() is not None:
                last = (logs[name].read_text().strip().splitlines() or ["it said nothing"])[-1]
                raise ConfigError(f"up: the {name} ended with status {process.returncode}: {last}")

    try:
        url = _address(logs["server"], check)
        say(f"serving at {url}; logs in {folder}")
        yield check, url
    finally:
        for process in running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _die_with_parent() -> None:
    """Linux: the kernel ends the process when the one that started it is gone, however it went."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _address(log: Path, check: Callable[[], None]) -> str:
    """Where the server says that it listens. Raises ConfigError when it does not within a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        check()
        for word in log.read_text().split():
            if word.startswith("http://"):
                url = word.rstrip(".,;")
                try:
                    with Client(url) as client:
                        client.health()
                    return url
                except ClientError:
                    pass
        time.sleep(0.1)
    raise ConfigError(f"up: the server did not say where it listens; see {log}")


def _trainer(folder: Path) -> dict[str, Any]:
    """The last line of the trainer's metrics; {} before the first."""
    path = folder / "online" / "metrics.jsonl"
    if not path.exists():
        return {}
    lines = path.read_text().splitlines()
    return {"trainer": json.loads(lines[-1])} if lines else {}


def _report(intervals: list[dict[str, Any]], trainer: dict[str, Any]) -> dict[str, Any]:
    """Means of the last fifth of the time."""
    asked = [i for i in intervals if i["requests"]]
    last = asked[-max(1, len(asked) // 5) :]
    n = sum(i["requests"] for i in last)
    means = {name: sum(i[name] * i["requests"] for i in last) / max(n, 1) for name in ("online", "frozen", "best", "blind")}
    gain = means["online"] / means["frozen"] - 1 if n else math.nan
    return {"intervals": intervals, "last": {**means, "requests": n, "from": last[0]["at"] if last else 0.0, "gain": gain},
            "failed": sum(i["failed"] for i in intervals), **trainer}  # fmt: skip


def _freshness(folder: Path, served: dict[tuple[int, int], float]) -> list[float]:
    """Seconds of each state that was published: from the oldest event that it is the first to know of, to the first answer that came of
    it or of a later one; those that nobody asked after are left out.
    """
    states = sorted(served.items())
    found = []
    path = folder / "online" / "metrics.jsonl"
    for line in path.read_text().splitlines() if path.exists() else ():
        for published, generation, sequence, delay, _ in json.loads(line)["updates"]:
            answered = next((at for state, at in states if state >= (generation, sequence)), None)
            if answered is not None:
                found.append(round(answered - (published - delay), 3))
    return found
