"""The whole system on one machine: a world that clicks and drifts, a server with two arms, an event log, label waiting, three trainers.

    report = up(Path("up"), minutes=5)

    backbone   a two-tower that learns online
    cs3        the same with CAS, CTS and CMS: its ranking model learns in a process of its own, memories lie in LMDB, and the server reads
               users' memories from there

All of them are processes, the same verbs that a deployment runs; the world is this one. The server deals users to the arms and logs what it
answers; every request is also ordered by the arm's first model, which stays as it was, memories and all: what learning online is worth is
the true click probability of what is shown, beside that of the frozen model, of the best possible choice, and of a blind one.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from prerank import build
from prerank.config import Config, ConfigError, dump, parse
from prerank.data import prepare
from prerank.datasets import resolve
from prerank.experiments import Columns, Settings, compare, read
from prerank.experiments.page import write as write_test
from prerank.online.afresh import afresh
from prerank.online.catalogue import Catalogue
from prerank.online.life import Life
from prerank.online.living import LivingWorld
from prerank.online.processes import Processes
from prerank.online.roles import pair
from prerank.online.start import start
from prerank.replay import replay
from prerank.serving import Client, Scorer, export
from prerank.serving.generation import Generation
from prerank.stream import Client as Events
from prerank.training.checkpoint import write_text

WINDOW = "2s"  # how long a click is waited for
LOGGED = 50  # impressions a user in the log of before
GROUPS = [{"match": "*ids*", "lr": 0.05, "rowwise": True}]
MODEL = {"name": "dssm", "hidden": [64, 32], "norm": False, "similarity": "dot", "id_head": 16}
CS3 = {"cas": {}, "cts": {}, "cms": {"ranker": {"name": "dcnv2", "hidden": [64, 32]}}}
EXPERIMENT = "cs3 against its backbone"
ARMS: Mapping[str, Any] = {"backbone": None, "cs3": CS3}


def up(folder: Path, *, minutes: float = 5.0, rate: float = 50.0, drift: float = 1.0, users: int = 2000, items: int = 1000, seed: int = 0,
       retrain: bool = True, overwrite: bool = False, say: Callable[[str], None] = lambda line: None,
       told: Callable[[dict[str, Any]], None] = lambda interval: None) -> dict[str, Any]:  # fmt: skip
    """Prepare, train, start everything, let the world live, stop everything; the report is also in folder/report.json.

    rate      requests a second;  drift   quarter turns of all tastes over the whole time
    retrain   at the end, train the backbone from scratch on the whole log, to compare with
    told      called every few seconds
    Raises ConfigError, and what training and exporting raise.
    """
    if (folder / "experiment.yaml").exists():
        if not overwrite:
            raise ConfigError(f"folder '{folder}': holds a system already; replace it with --overwrite, or give another --to")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    configs = {arm: _config(folder, arm, users, items, seed) for arm in ARMS}
    frozen = {}
    for arm, config in configs.items():
        say(f"{arm}: training the first model on the log of before")
        write_text(folder / f"{arm}.yaml", dump(config))
        frozen[arm] = _frozen(config, folder / f"frozen-{arm}")
    arms = [{"name": arm, "folder": str(folder / f"generations-{arm}"), "share": 1 / len(ARMS)} for arm in ARMS]
    write_text(folder / "experiment.yaml", yaml.safe_dump({"name": EXPERIMENT, "salt": str(seed), "arms": arms}))
    world = LivingWorld(Path(resolve(configs["cs3"].data).log or "").parent, drift, 60 * minutes, seed=seed + 1)
    intervals: list[dict[str, Any]] = []
    with Processes(folder) as processes:
        url = _begin(processes, folder)
        say(f"serving at {url}; logs in {folder}")
        with Client(url) as client, Events(f"sqlite:///{folder / 'events.db'}", linger=0.05) as events:
            life = Life(world, client, events, frozen)
            for interval in life.live(rate, processes.check):
                intervals.append(interval.told())
                told(intervals[-1] | {"trainer": _trainers(folder).get("cs3", {})})
            events.flush()
        time.sleep(3)  # the last windows close, and the trainers learn of them
        trainers = _trainers(folder)
    report = _report(intervals) | {"trainers": trainers, "trainer": trainers["cs3"], "freshness": _freshness(folder, life.served),
                                   "test": _test(folder)}  # fmt: skip
    if retrain:
        say("training a model from scratch on the whole log, to compare with")
        kept = [(asked, at) for asked, at in life.kept if at >= report["last"]["from"]]
        report["retrained"] = afresh(configs["backbone"], folder / "retrained", world, kept)
    report |= {"minutes": minutes, "rate": rate, "drift": drift, "users": users, "items": items, "seed": seed}
    write_text(folder / "report.json", json.dumps(report, indent=1))
    return report


def _config(folder: Path, arm: str, users: int, items: int, seed: int) -> Config:
    log = {"users": users, "items": items, "impressions": LOGGED * users, "drift": 0.0, "seed": seed, "days": 4}
    synergy = ARMS[arm]
    apart = {} if synergy is None else {"synergy": {**synergy, "store": f"lmdb:{folder / 'memory.lmdb'}"}}
    return parse({
        "name": arm,
        "data": {"recipe": "simulated", "options": log, "labels": {"click": {"column": "click"}}, "width": 16},
        "model": MODEL, **apart,
        "training": {"epochs": 3, "batch_size": 256, "average": 0.95, "threads": 1, "optimizer": {"lr": 0.002, "groups": GROUPS}},
        "online": {"rows": f"sqlite:///{folder / 'rows.db'}", "start": str(folder / f"first-{arm}"), "wait": "0.2s", "checkpoint": "5s",
                   "recall": {"tick": "1s", "keep": "30s"}, "ranking": "apart" if apart else "beside",
                   "publish": {"folder": str(folder / f"generations-{arm}"), "every": "1s"}},
        "output": str(folder / f"online-{arm}"),
    })  # fmt: skip


def _frozen(config: Config, folder: Path) -> Scorer:
    """The model at the end of the log of before, with the memories of then; a generation of it lies in the folder."""
    assert config.online is not None
    inside = None if config.synergy is None else config.synergy.model_copy(update={"store": "memory"})
    beside = config.online.model_copy(update={"ranking": "beside", "recall": None})
    first = Path(config.online.start or "")
    config = config.model_copy(update={"synergy": inside})
    replay(config.model_copy(update={"online": None, "output": str(first)}), window=None)
    dataset = prepare(resolve(config.data))
    both = pair(config.model_copy(update={"online": beside}), dataset, "two-tower", None)
    start(both, first, "two-tower")
    options: dict[str, Any] = config.model.model_dump(mode="json")
    path = export(Catalogue(dataset), both.main.predictor, folder=folder, options=options, name="frozen", keep=1,
                  synergy=None if inside is None else inside.model_dump(mode="json"))  # fmt: skip
    return Scorer(Generation(path), build.served)


def _begin(processes: Processes, folder: Path) -> str:
    """Everything, in an order in which each finds what it needs; the server's address."""
    events, rows = f"sqlite:///{folder / 'events.db'}", f"sqlite:///{folder / 'rows.db'}"
    waiting = ["--state", str(folder / "labels"), "--kind", f"click={WINDOW}", "--lateness", "1s", "--idle", "1s",
               "--dead", f"sqlite:///{folder / 'dead.db'}", "--create", "-q"]  # fmt: skip
    processes.begin("label waiting", ["events", "wait", events, "--to", rows, *waiting])
    for arm in ARMS:
        processes.begin(f"trainer {arm}", ["online", "-c", str(folder / f"{arm}.yaml"), "--resume", "-q"])
    processes.begin("ranking trainer", ["online", "-c", str(folder / "cs3.yaml"), "--role", "ranking", "--resume", "-q"])
    processes.until(lambda: all((folder / f"generations-{arm}" / "current.json").exists() for arm in ARMS), "the first generations")
    processes.begin("server", ["serve", "--experiment", str(folder / "experiment.yaml"), "--port", "0", "--follow", "0.5", "--log", events])
    return processes.address("server")


def _trainers(folder: Path) -> dict[str, Any]:
    """The last line of each trainer's metrics, before the first of them nothing."""
    found = {}
    for name, place in (*((arm, f"online-{arm}") for arm in ARMS), ("ranking", "online-cs3/ranking")):
        path = folder / place / "metrics.jsonl"
        if path.exists() and (lines := path.read_text().splitlines()):
            found[name] = json.loads(lines[-1])
    return found


def _report(intervals: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of the last fifth of the time."""
    asked = [i for i in intervals if i["requests"]]
    last = asked[-max(1, len(asked) // 5) :]
    n = sum(i["requests"] for i in last)
    means = {name: sum(i[name] * i["requests"] for i in last) / max(n, 1) for name in ("online", "frozen", "best", "blind")}
    gain = means["online"] / means["frozen"] - 1 if n else math.nan
    arms = {}
    for arm in ARMS:
        there = [i["arms"][arm] for i in last if arm in i["arms"]]
        requests = sum(a["requests"] for a in there)
        arms[arm] = {"requests": requests} | {k: sum(a[k] * a["requests"] for a in there) / max(requests, 1) for k in ("online", "frozen")}
    return {"intervals": intervals, "last": {**means, "requests": n, "from": last[0]["at"] if last else 0.0, "gain": gain, "arms": arms},
            "failed": sum(i["failed"] for i in intervals)}  # fmt: skip


def _test(folder: Path) -> dict[str, Any]:
    """What `prerank abtest` says of the rows; its page lies in folder/abtest."""
    columns = Columns("arm", "user", ("click",), (), "latency", "request", "ts", "experiment", EXPERIMENT)
    record = compare(read(f"sqlite:///{folder / 'rows.db'}", columns), Settings("backbone"))
    write_test(record, folder / "abtest")
    found: dict[str, Any] = record["metrics"]["click"]["arms"]["cs3"]
    return {**found, "users": record["users"], "rows": record["rows"], "sample_ratio": record["sample_ratio"]["p"]}


def _freshness(folder: Path, served: dict[tuple[str, int, int], float]) -> list[float]:
    """Seconds of each state that was published: from the oldest event that it is the first to know of, to the first answer that came of
    it or of a later one; those that nobody asked after are left out.
    """
    found = []
    for arm in ARMS:
        states = sorted((state, at) for (whose, *state), at in served.items() if whose == arm)
        path = folder / f"online-{arm}" / "metrics.jsonl"
        for line in path.read_text().splitlines() if path.exists() else ():
            for published, generation, sequence, delay, _ in json.loads(line)["updates"]:
                answered = next((at for state, at in states if state >= [generation, sequence]), None)
                if answered is not None:
                    found.append(round(answered - (published - delay), 3))
    return found
