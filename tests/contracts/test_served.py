"""What is served is what was trained: train, export, `prerank serve` in a process of its own, and the same logits over HTTP.

The expected logits come from the path that training and evaluation use (`Run.logits`: loader, batch, model in eval mode),
never from serving's code. Users have text ids and a table that does not know them all; some users and items occur in no train
row; the context has missing values; there are two objectives.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from prerank import build
from prerank.batch import Batch
from prerank.cli import app
from prerank.config import parse
from prerank.run import Run, open_run, train
from prerank.schema import UNKNOWN
from prerank.serving import Client, Generation, Request
from prerank.serving import export as write
from prerank.serving.scorer import Scorer
from tests.training.conftest import planted_log, settings

USERS, ITEMS, PAIRS = 200, 1200, 1000
TOWER = {"hidden": [24, 16], "dropout": 0.1}
MODELS: dict[str, dict[str, Any]] = {
    "mf": {"name": "mf", "width": 12},
    "dssm": {"name": "dssm", "width": 16, **TOWER},
    "inttower": {"name": "inttower", "heads": 2, "head_width": 8, **TOWER},
    "inttower-id-head": {"name": "inttower", "heads": 3, "item_heads": 2, "head_width": 8, "id_head": 5, **TOWER},
    "ranktower": {"name": "ranktower", "heads": 3, "item_heads": 2, "head_width": 8, "id_head": 5, **TOWER},
    "dssm-cs3": {"name": "dssm", "width": 16, "id_head": 4, **TOWER},
}
SYNERGY: dict[str, Any] = {  # what a generation holds of memory is read by user towers; unknown users have none
    "dssm-cs3": {"cas": {"sides": ["user", "item"]}, "cts": {"negatives": True, "inputs": "vector_count_age"}},
}
RANKERS: dict[str, dict[str, Any]] = {  # served as scorers of given candidates: COLD's place
    "lr": {"name": "lr"},
    "dcnv2": {"name": "dcnv2", "layers": 2, "id_head": 5, **TOWER},
    "cold": {"name": "cold", "cross": [["user", "tags"]], **TOWER},
}
FEATURES = [
    {"name": "user", "side": "user"},
    {"name": "group", "side": "user"},
    {"name": "age", "side": "user", "kind": "numeric", "bins": 5},
    {"name": "income", "side": "user", "kind": "numeric"},
    {"name": "seen", "side": "user", "kind": "sequence", "share": "item", "max_length": 4, "pooling": "attention"},
    {"name": "tab", "side": "context"},
    {"name": "hour", "side": "context", "kind": "numeric", "encoding": "autodis", "meta_embeddings": 6, "temperature": 0.3},
    {"name": "item", "side": "item"},
    {"name": "tags", "side": "item", "kind": "multi", "width": 5},
    {"name": "price", "side": "item", "kind": "numeric", "encoding": "autodis"},
    {"name": "picture", "side": "item", "kind": "vector", "dim": 3},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """log, users and items as Parquet."""
    at = tmp_path_factory.mktemp("served")
    rng = np.random.default_rng(3)
    log = planted_log(30_000, USERS, ITEMS).select(
        "item", "ts", "click", "utility", user="u, " + pl.col("user").cast(pl.String),
        tab=pl.Series(rng.integers(0, 4, 30_000)), hour=pl.Series(np.where(rng.random(30_000) < 0.1, np.nan, rng.normal(12, 5, 30_000))),
    )  # fmt: skip
    log = log.filter((pl.int_range(pl.len()) >= 24_000) | ~(pl.col("user").is_in(["u, 3", "u, 4"]) | pl.col("item").is_in([5, 6])))
    log.write_parquet(at / "log.parquet")
    known = np.arange(USERS - 20)  # the table does not know the last users
    pl.DataFrame({
        "user": [f"u, {u}" for u in known], "group": known % 7, "age": [None if u % 9 == 0 else float(u % 50) for u in known],
        "income": rng.normal(1000, 200, len(known)), "seen": [rng.integers(0, ITEMS, u % 7).tolist() for u in known],
    }).write_parquet(at / "users.parquet")  # fmt: skip
    items = np.arange(ITEMS)
    pl.DataFrame({
        "item": items, "tags": ["", "a", "a|b", "c|b|zebra"] * (ITEMS // 4), "price": rng.lognormal(2, 1, ITEMS),
        "picture": rng.normal(size=(ITEMS, 3)),
    }).write_parquet(at / "items.parquet")  # fmt: skip
    return at


@dataclass(frozen=True)
class Served:
    """A trained run and the address where its generation is served."""

    run: Run
    url: str


def trained(folder: Path, name: str) -> Run:
    changes = {
        "data.users": str(folder / "users.parquet"), "data.items": str(folder / "items.parquet"), "data.features": FEATURES,
        "data.labels": {"click": {"column": "click"}, "like": {"rule": "utility > 1"}},
        "data.split": {"kind": "time", "validation": 0.1, "test": 0.1},
        "model": {**MODELS, **RANKERS}[name], "synergy": SYNERGY.get(name),
        "objective": [{"loss": "logloss", "label": "click"}, {"loss": "logloss", "label": "like", "weight": 0.5}],
        "training.epochs": 2, "output": str(folder / name),
    }  # fmt: skip
    run, _ = train(parse(settings(folder, **changes)))
    return run


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """`prerank serve` of a folder of generations, from the first one (mf) on; newer ones are swapped in. Its address."""
    export(trained(folder, "mf"), folder)
    command = [sys.executable, "-W", "error", "-m", "prerank", "serve", str(folder / "generations"), "--port", "0", "--follow", "0.05"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://\S+", line)
            assert found is not None, (line, process.communicate())
            with Client(found[0]) as client:
                client.wait_until_ready()
            yield found[0]
            process.terminate()
            _, error = process.communicate(timeout=20)
            assert (process.returncode, error) == (0, "")
        finally:
            process.kill()


@pytest.fixture(scope="module", params=[*MODELS, *RANKERS])
def served(request: pytest.FixtureRequest, folder: Path, server: str) -> Served:
    run = trained_before(folder, request.param)
    number = export(run, folder)
    deadline = time.monotonic() + 60
    while httpx.get(f"{server}/health").json()["generation"] != number:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return Served(run, server)


def export(run: Run, folder: Path) -> int:
    """Put a run in force by the command line. The generation's number."""
    users = ["--users"] if run.config.model.name in ("inttower", "ranktower") else []
    done = CliRunner().invoke(app, ["export", str(run.folder), "--to", str(folder / "generations"), *users])
    assert (done.exit_code, done.stderr) == (0, ""), done.exception
    return int(json.loads((folder / "generations" / "current.json").read_text())["generation"].removeprefix("gen-"))


def near(found: Any, expected: Any) -> None:
    """|difference| <= 1e-5 max(1, |logit|), everywhere."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    off = np.abs(found - expected) / np.maximum(1, np.abs(expected))
    assert off.max(initial=0) <= 1e-5, f"logit {expected.flat[off.argmax()]} is served as {found.flat[off.argmax()]}"


def rows_of(run: Run, folder: Path) -> tuple[pl.DataFrame, np.ndarray]:
    """Random test rows of the log as they are on disk, and their trained logits.  # [PAIRS], [PAIRS, T]"""
    z, _ = run.logits("test")
    test = run.dataset.rows("test")
    picked = np.random.default_rng(1).choice(len(test), PAIRS, replace=False)
    return pl.read_parquet(folder / "log.parquet")[test[picked]], z[picked]


def requests_of(frame: pl.DataFrame) -> list[Request]:
    """One request a row; a missing hour is left out or given as null."""
    rows = enumerate(frame.iter_rows(named=True))
    hours = [(n, r, {} if np.isnan(r["hour"]) and n % 2 else {"hour": None if np.isnan(r["hour"]) else r["hour"]}) for n, r in rows]
    return [Request(user=r["user"], candidates=[r["item"]], context={"tab": r["tab"], **hour}) for _, r, hour in hours]


@pytest.mark.parametrize("format", ["json", "msgpack"])
def test_1000_random_pairs_of_the_test_log(served: Served, folder: Path, format: Any) -> None:
    frame, expected = rows_of(served.run, folder)
    assert {"u, 3", "u, 4", f"u, {USERS - 1}"} & set(frame["user"])  # users of no train row, or of no table, are among them
    asked = requests_of(frame)
    with Client(served.url, format=format) as client:
        batches = [client.score_many(asked[first : first + 100]).responses for first in range(0, PAIRS, 100)]
        alone = [client.score(r.candidates, user=r.user, context=r.context) for r in asked[:100]]
    together = [r for batch in batches for r in batch]
    assert all(len(r.items) == 1 and not len(r.missing) and not r.unknown_user for r in together)
    for t, name in enumerate(["click", "like"]):
        near([r.logits[name][0] for r in together], expected[:, t])
        near([r.logits[name][0] for r in alone], expected[:100, t])  # a single request is the batch's
    assert [r.missing_features for r in alone] == [r.missing_features for r in together[:100]]
    assert np.std(expected[:, 0]) > 0.05  # something was learned, so that equal means something


def test_unknown_users_and_items_and_raw_features(served: Served) -> None:
    run = served.run
    encode = {name: e.encode for name, e in run.dataset.encoders.items()}
    given = {"group": 3, "age": 31.5, "seen": [7, 8, 99999], "income": None}
    raw = {"user": "who", "tab": 77, "hour": 8.5, **given}
    candidates = [5, 6, 10, 11, 1199]
    user = {f.name: torch.from_numpy(np.asarray(encode[f.name]([raw[f.name]]))) for f in run.dataset.schema.on("user")}
    assert user["user"].tolist() == [UNKNOWN] == user["tab"].tolist()
    rows = [run.dataset.item_ids.to_list().index(c) for c in candidates]
    item = {f.name: torch.from_numpy(np.array(run.dataset.items[f.name][rows])) for f in run.dataset.schema.on("item")}
    n = len(candidates)
    where, index = torch.ones(1, n, dtype=torch.bool), torch.arange(n)[None]
    batch = Batch(user, item, torch.zeros(1, dtype=torch.int64), index, torch.zeros(1, n, 2), where)
    with torch.no_grad():
        expected = run.model.eval()(batch).logits[0].numpy()
    for format in ("json", "msgpack"):
        with Client(served.url, format=format) as client:  # type: ignore[arg-type]
            found = client.score([*candidates, 10**12, -4], user="who", features=given, context={"tab": 77, "hour": 8.5})
        assert found.unknown_user
        assert sorted(found.missing) == [-4, 10**12]
        order = [candidates.index(i) for i in found.items]
        for t, name in enumerate(["click", "like"]):
            near(found.logits[name], expected[order, t])
        assert found.logits["click"][0] == max(found.logits["click"])


@pytest.mark.parametrize("served", ["inttower"], indirect=True)
def test_too_much_too_long_and_too_large(served: Served) -> None:
    """At the limits that `prerank serve` has by default: each a 4xx with a short line, or finite numbers; the server lives on."""
    url = f"{served.url}/score"
    million = httpx.post(url, content=b'{"candidates":[' + b"1," * 999_999 + b"1]}")
    assert (million.status_code, million.json()["field"]) == (422, "candidates")
    assert million.json()["detail"] == "must be at most 100000 in all, got 1000000"
    large = httpx.post(url, content=b"[" + b" " * 100_000_000 + b"]", timeout=60)
    assert (large.status_code, large.json()["detail"]) == (413, "body must be at most 8000000 bytes")
    word = "x" * 1_000_000
    for body in ({"user": 7, "candidates": [1]}, {"candidates": [word]}, {"candidates": [1], "features": {word: 1}},
                 {"candidates": [1], "objective": word}, {"candidates": [1], word: 2}):  # fmt: skip
        answer = httpx.post(url, json=body)
        assert answer.status_code == 422
        assert len(answer.json()["detail"]) <= 300
    asked = [{"user": word, "candidates": [1, 1, 2]}, {"candidates": [1, 2], "features": {"income": 1e300}, "context": {"hour": -1e38}},
             {"candidates": [1, 2], "features": {"seen": list(range(100_000)), "group": None}}]  # fmt: skip
    for body in asked:
        answer = httpx.post(url, json=body)
        assert answer.status_code == 200
        assert len(answer.json()["items"]) == len(body["candidates"])  # type: ignore[arg-type]
        assert all(np.isfinite(v) for v in answer.json()["logits"]["click"])
    many = httpx.post(url, json={"requests": [{"candidates": [1]}] * 5000}, timeout=60)
    assert len(many.json()["responses"]) == 5000
    assert httpx.get(f"{served.url}/health").json()["status"] == "ok"


@pytest.mark.parametrize(("dtype", "floor"), [("bf16", 0.95), ("int8", 0.88)])
@pytest.mark.parametrize("name", MODELS)
def test_smaller_storage_keeps_the_top_100(folder: Path, tmp_path: Path, name: str, dtype: Any, floor: float) -> None:
    """Of the exact top 100 of all 1,200 items, how many a smaller storage finds too (mean over users)."""
    run = trained_before(folder, name)
    top = []
    for stored in ("fp32", dtype):
        at = write(run.dataset, run.model, folder=tmp_path / stored, options=MODELS[name], dtype=stored,
                   synergy=SYNERGY.get(name))  # fmt: skip
        scorer = Scorer(Generation(at), build.served)
        asked = [Request(user=f"u, {u}", candidates=list(range(ITEMS)), k=100) for u in range(7, 57)]
        top.append([set(r.items) for r in scorer.score(asked)])
    overlap = np.mean([len(a & b) / 100 for a, b in zip(*top, strict=True)])
    print(f"{name} {dtype}: {overlap:.4f}")
    assert overlap >= floor


def trained_before(folder: Path, name: str) -> Run:
    return open_run(folder / name) if (folder / name / "model.safetensors").exists() else trained(folder, name)
