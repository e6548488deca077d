"""A small prepared data set and model for the serving tests, and a server in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import uvicorn
from torch import nn

from prerank import build
from prerank.config import Model
from prerank.data import Encoder
from prerank.data.encoder import Bins, Categorical, Many, Standardise
from prerank.data.vocabulary import Vocabulary
from prerank.schema import Schema
from prerank.serving import Client, Settings, create, export
from prerank.serving.server import bind

USERS, ITEMS = 60, 300
FEATURES = [
    {"name": "city", "side": "user"},
    {"name": "age", "side": "user", "kind": "numeric", "bins": 4},
    {"name": "income", "side": "user", "kind": "numeric"},
    {"name": "seen", "side": "user", "kind": "sequence", "max_length": 3, "share": "item"},
    {"name": "tab", "side": "context"},
    {"name": "item", "side": "item"},
    {"name": "tags", "side": "item", "kind": "multi", "max_length": 4},
    {"name": "price", "side": "item", "kind": "numeric"},
]


@dataclass
class World:
    """What export reads of a Dataset, and the columns that a request brings."""

    schema: Schema
    sizes: dict[str, int]
    encoders: dict[str, Encoder]
    users: dict[str, np.ndarray]
    items: dict[str, np.ndarray]
    user_ids: pl.Series
    item_ids: pl.Series


def world(*, objectives: tuple[str, ...] = ("click",), text: bool = False, items: int = ITEMS, users: int = USERS, seed: int = 0) -> World:
    """Random features; ids are scattered integers, or text."""
    rng = np.random.default_rng(seed)
    schema = Schema.model_validate({"features": FEATURES, "user_id": "user", "item_id": "item", "objectives": objectives, "width": 8})
    item_ids = pl.Series("id", rng.permutation(10 * items)[:items].astype(np.int64) - items)
    user_ids = pl.Series("id", rng.permutation(10 * users)[:users].astype(np.int64))
    if text:
        item_ids, user_ids = ("i" + item_ids.cast(pl.String)).alias("id"), ("u" + user_ids.cast(pl.String)).alias("id")
    item = Vocabulary(item_ids)
    encoders: dict[str, Encoder] = {
        "user": Categorical("user", Vocabulary(user_ids)),
        "city": Categorical("city", Vocabulary(pl.Series(["rome", "oslo", "lima"]))),
        "age": Bins("age", np.array([20.0, 40.0, 60.0])),
        "income": Standardise("income", 10.0, 2.0),
        "seen": Many("seen", item, 3, "last"),
        "tab": Categorical("tab", Vocabulary(pl.Series([0, 1, 2, 3]))),
        "item": Categorical("item", item),
        "tags": Many("tags", Vocabulary(pl.Series(["a", "b", "c"])), 4, "first"),
        "price": Standardise("price", 3.0, 1.5),
    }
    seen = [item_ids.gather(rng.integers(0, items, rng.integers(0, 4))).to_list() for _ in range(users)]
    raw_users: dict[str, Any] = {
        "user": user_ids, "city": rng.choice(["rome", "oslo", "lima", "mars"], users).tolist(), "age": rng.uniform(10, 80, users).tolist(),
        "income": rng.normal(10, 2, users).tolist(), "seen": pl.Series(seen, dtype=pl.List(item_ids.dtype)),
    }  # fmt: skip
    raw_items: dict[str, Any] = {
        "item": item_ids, "tags": [["a", "b"], ["c"], []] * (items // 3), "price": rng.normal(3, 1, items).tolist(),
    }  # fmt: skip
    sizes = {f.name: encoders[f.name].size for f in schema.features if f.embedded and f.share is None}
    return World(
        schema, {k: v for k, v in sizes.items() if v is not None}, encoders,
        {name: encoders[name].encode(values) for name, values in raw_users.items()},
        {name: encoders[name].encode(values) for name, values in raw_items.items()},
        user_ids, item_ids,
    )  # fmt: skip


OPTIONS: dict[str, dict[str, Any]] = {
    "inttower": {"name": "inttower", "hidden": [24, 16], "heads": 2, "head_width": 8, "id_head": 5},
    "dssm": {"name": "dssm", "hidden": [24, 16]},
    "dat": {"name": "dat", "hidden": [24, 16], "width": 8},
    "hit": {"name": "hit", "hidden": [24, 16], "generator": [12], "width": 8, "id_head": 4},
    "rcg": {"name": "rcg", "hidden": [24, 16], "width": 8, "feed_forward": 16},
    "mf": {"name": "mf", "width": 12},
    "ranktower": {"name": "ranktower", "hidden": [24, 16], "heads": 3, "item_heads": 2, "head_width": 8, "id_head": 5},
    "lr": {"name": "lr"},
    "deepfm": {"name": "deepfm", "hidden": [24, 16]},
}


def model(data: World, name: str = "inttower", seed: int = 0) -> nn.Module:
    """Random weights, and BatchNorm statistics as after training."""
    torch.manual_seed(seed)
    built = build.model(Model.model_validate(OPTIONS[name]), data.schema, data.sizes)
    with torch.no_grad():
        for module in built.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.5)
                module.running_var.uniform_(0.5, 2.0)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
        for parameter_name, parameter in built.named_parameters():
            if "table" in parameter_name:
                parameter.mul_(8.0)  # logits of about 1, as after training
    return built.eval()


def published(folder: Path, data: World, name: str = "inttower", *, calibrated: bool = True, seed: int = 0, **options: Any) -> nn.Module:
    """A generation of a random model below folder; the model it holds."""
    made = model(data, name, seed)
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (2000, len(data.schema.objectives)))
    labels = rng.random(logits.shape) < 1 / (1 + np.exp(-(0.5 * logits - 1)))
    on = (logits, labels.astype(np.float32)) if calibrated else None
    export(data, made, folder=folder, options=OPTIONS[name], calibrate_on=on, **options)
    return made


def trained_logits(made: nn.Module, data: World, user_columns: dict[str, np.ndarray], items: np.ndarray) -> np.ndarray:
    """What training computes: the model on a batch of one list.  # [C, T]"""
    from prerank.batch import Batch

    n = len(items)
    t = len(data.schema.objectives)
    batch = Batch(
        user={k: torch.from_numpy(v) for k, v in user_columns.items()},
        item={k: torch.from_numpy(np.array(v[items])) for k, v in data.items.items()},
        user_index=torch.zeros(1, dtype=torch.int64), item_index=torch.arange(n)[None],
        labels=torch.zeros(1, n, t), where=torch.ones(1, n, dtype=torch.bool),
    )  # fmt: skip
    with torch.no_grad():
        return made(batch).logits[0].numpy()


SERVE = """
import sys
from pathlib import Path
from prerank import build
from prerank.serving import Experiment, Settings, serve
options = eval(sys.argv[2])
port, workers, arms = options.pop("port", 0), options.pop("workers", 1), options.pop("experiment", None)
folder = None if arms else Path(sys.argv[1])
serve(Settings(folder, experiment=Experiment.model_validate(arms) if arms else None, **options), build.served, port=port, workers=workers)
"""


@contextmanager
def server(folder: Path | None, **options: Any) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server process on a free port: its URL and the process. It is ended, if it still runs, and must then end with status 0.

    experiment   as plain data
    """
    environment = {**os.environ, "PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(folder), repr(options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        if found is None:
            raise AssertionError(f"no server: {line} {process.communicate()[1]}")
        yield found[0], process
        if process.poll() is None:
            process.terminate()
            out, error = process.communicate(timeout=120)
            assert process.returncode == 0, (process.returncode, out, error)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@contextmanager
def threaded(folder: Path | None, **options: Any) -> Iterator[str]:
    """The same server in a thread of this process, for tests that need no process of its own: its URL."""
    with closing(bind("127.0.0.1", 0)) as listener:
        app = create(Settings(folder, **options), build.served)
        running = uvicorn.Server(uvicorn.Config(app, loop="asyncio", http="httptools", ws="none", log_level="warning"))
        thread = threading.Thread(target=running.run, args=([listener],))
        thread.start()
        try:
            with Client(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
                client.wait_until_ready()
            yield client.url
        finally:
            running.should_exit = True
            thread.join()
