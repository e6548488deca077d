"""What `prerank demo` does, step by step; each step is what the verb of that name does."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from prerank.config import ConfigError, nearest, parse
from prerank.datasets import recipe
from prerank.metrics import sigmoid
from prerank.report import Column, Table, latency, reliability_curve, roc_curve, training_curve
from prerank.run import Run, train
from prerank.serving import Client, export
from prerank.training import Result, console_progress

CANDIDATES = (100, 1_000, 5_000)
DATA = ("kuairand", "simulated")
MODELS: dict[str, dict[str, Any]] = {
    "DSSM": {"name": "dssm", "hidden": [128, 64], "dropout": 0.2},
    "IntTower": {"name": "inttower", "hidden": [128, 64], "heads": 2, "head_width": 32, "dropout": 0.2},
}
TRAINING: dict[str, Any] = {"batch_size": 1024, "patience": 1, "monitor": "auc", "precision": "fp32",
                            "optimizer": {"lr": 1e-3, "groups": [{"match": "embeddings.tables*", "l2": 3e-5}]}}  # fmt: skip

Trained = dict[str, tuple[Run, Result]]
Latencies = dict[int, tuple[float, float]]


def choose(asked: str | None) -> tuple[str, str]:
    """The data set, and why this one. Raises ConfigError for a name that the demo does not know."""
    if asked is not None:
        if asked not in DATA:
            raise ConfigError(f"--data: unknown data set '{asked}'{nearest(asked, DATA)}")
        return asked, "asked for"
    found = recipe("kuairand").locate({})
    if found is not None:
        return "kuairand", f"KuaiRand-Pure, real impressions of a video app, found in {found}"
    return "simulated", "a planted cascade world; for real logs: prerank data get kuairand, or set PRERANK_DATA"


def train_models(to: Path, data: str, epochs: int, console: Console) -> Trained:
    """Train every model of the demo on the same data, each in a folder of its own."""
    trained: Trained = {}
    for name, model in MODELS.items():
        console.print(f"\n[bold]Training {name}[/]")
        settings = parse({"name": f"{name} on {data}", "data": {"recipe": data}, "model": model, "objective": objective(data, name),
                          "training": {**TRAINING, "epochs": epochs}, "output": str(to / name.lower())})  # fmt: skip
        said: list[str] = []

        def preparing(stage: str, done: float, said: list[str] = said) -> None:
            if stage not in said:
                said.append(stage)
                console.print(f"preparing: {stage}")

        trained[name] = train(settings, overwrite=True, progress=console_progress(), preparing=preparing)
    return trained


def objective(data: str, model: str) -> list[dict[str, Any]]:
    """LogLoss on both labels of the data set, and IntTower's contrastive regularisation."""
    labels = {"kuairand": ("long_view", "is_click"), "simulated": ("click", "conversion")}[data]
    terms: list[dict[str, Any]] = [{"loss": "logloss", "label": label} for label in labels]
    return [*terms, {"loss": "cir", "weight": 0.01}] if model == "IntTower" else terms


def comparison(trained: Trained, data: str) -> Table:
    """The models side by side on the test split, first objective."""
    label = next(iter(trained.values()))[0].dataset.schema.objectives[0]
    columns = [Column("model"), Column("AUC", best="max"), Column("95 %"), Column("GAUC", best="max"), Column("LogLoss", best="min"),
               Column("parameters"), Column("rows/s")]  # fmt: skip
    table = Table(f"{data}: {label} on the test split", columns)
    for name, (run, result) in trained.items():
        m = run.evaluate("test", resamples=100)[label]
        interval = f"{m.auc_ci.low:.4f}..{m.auc_ci.high:.4f}" if m.auc_ci else None
        table.add({"model": name, "AUC": m.auc, "95 %": interval, "GAUC": m.gauc, "LogLoss": m.logloss,
                   "parameters": result.parameters, "rows/s": round(result.rows_per_second)})  # fmt: skip
    return table


def serve_and_score(to: Path, trained: Trained, requests: int, console: Console) -> None:
    """Export each model, start a real server, score real users through a real client, stop it; latencies go to latency.json."""
    measured: dict[str, Latencies] = {}
    for name, (run, _) in trained.items():
        folder = run.folder / "generations"
        exported = export(run.dataset, run.model, folder=folder, options=run.config.model.model_dump(mode="json"),
                          name=run.config.name, calibrate_on=run.logits("validation"))  # fmt: skip
        console.print(f"\n[bold]Serving {name}[/] from {exported}")
        command = [sys.executable, "-m", "prerank", "serve", str(folder), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                said = server.stdout.readline()
                if not said.startswith("serving "):
                    raise ConfigError("the server did not start; its own line above says why")
                url = said.split()[1]
                with Client(url) as client:
                    client.wait_until_ready()
                    measured[name] = ask(client, run, requests, console)
                console.print(curl(url, run), soft_wrap=True, markup=False)
            finally:
                server.terminate()
        console.print(f"server stopped with status {server.returncode}")
    (to / "latency.json").write_text(json.dumps(measured))
    table = Table("one user over HTTP: milliseconds, p50 / p99", [Column("model"), *(Column(f"k = {k:,}") for k in CANDIDATES)])
    for name, at in measured.items():
        table.add({"model": name, **{f"k = {k:,}": f"{p50:.2f} / {p99:.2f}" for k, (p50, p99) in at.items()}})
    console.print(table.rich())


def ask(client: Client, run: Run, requests: int, console: Console) -> Latencies:
    """Score `requests` real users against each number of candidates; milliseconds p50 and p99, JSON both ways."""
    rng = np.random.default_rng(0)
    users, items = run.dataset.user_ids.to_list(), run.dataset.item_ids.to_numpy()
    found: Latencies = {}
    for k in CANDIDATES:
        times = []
        for i in range(requests + 10):
            candidates = rng.choice(items, k, replace=k > len(items))
            started = time.perf_counter()
            answer = client.score(candidates, user=users[rng.integers(len(users))], k=10)
            if i >= 10:  # the first ones warm up
                times.append(1e3 * (time.perf_counter() - started))
        found[k] = (float(np.percentile(times, 50)), float(np.percentile(times, 99)))
        console.print(f"  {k:>5,} candidates: p50 {found[k][0]:.2f} ms, p99 {found[k][1]:.2f} ms; best item {answer.items[0]}")
    return found


def curl(url: str, run: Run) -> str:
    """A line that a reader can paste while a server runs."""
    body = json.dumps({"user": run.dataset.user_ids[0], "candidates": run.dataset.item_ids[:5].to_list(), "k": 3})
    return f"  curl {url}/score -d '{body}'"


def pictures(to: Path, trained: Trained) -> Sequence[Path]:
    """Training curves, ROC, calibration, and latency against candidates, as PNG."""
    history: Mapping[str, list[dict[str, Any]]] = {
        name: [{**e, "auc": e["validation_auc"]} for e in result.history] for name, (_, result) in trained.items()
    }
    scores = {name: run.logits("test") for name, (run, _) in trained.items()}
    first = {name: (z[:, 0], y[:, 0]) for name, (z, y) in scores.items()}
    times = {name: {int(k): (v[0], v[1]) for k, v in at.items()} for name, at in json.loads((to / "latency.json").read_text()).items()}
    label = next(iter(trained.values()))[0].dataset.schema.objectives[0]
    return [
        training_curve(history, to / "training.png"),
        roc_curve(first, to / "roc.png", subtitle=f"{label}, test split"),
        reliability_curve({n: (sigmoid(z), y) for n, (z, y) in first.items()}, to / "calibration.png", subtitle=f"{label}, test split"),
        latency(times, to / "latency.png", subtitle="over HTTP, JSON both ways, one client"),
    ]
