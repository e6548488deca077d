"""What a request notices while generations and deltas flip: a server under a steady rate of requests, quiet and while it is being updated.

    python -m benchmarks.hot_update [--rate 200] [--quiet 60] [--flipping 300] [--generations 20] [--deltas 80]

Everything is written before; during the run it is only moved into the folder that the server follows, at even distances. Requests come at
a fixed rate whatever the answers do (a late answer counts from when its request was due). Answers carry generation and delta sequence;
`--checked` of them are recomputed from those, and a score that differs counts as mixed. IntTower as in `benchmarks.scoring_latency`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import torch
from rich.console import Console

from benchmarks import record
from prerank import build
from prerank.config import Model
from prerank.data.encoder import Categorical, Encoder
from prerank.data.vocabulary import Vocabulary
from prerank.schema import Schema
from prerank.serving import Client, Request, export
from prerank.serving.change import Changes, Entities
from prerank.serving.delta import write_delta
from prerank.serving.live import scorer_at
from prerank.serving.messages import ScoreResponse

MODEL = {"name": "inttower", "hidden": [300, 300, 128], "heads": 2, "head_width": 64}
KINDS = 40
TOUCHED = 500  # items, and rows of the tables, that a delta touches
BEST, CONNECTIONS = 50, 16
TOLERANCE = 1e-5


@dataclass
class World:
    """What `export` reads of prepared data."""

    schema: Schema
    sizes: dict[str, int]
    encoders: dict[str, Encoder]
    users: dict[str, np.ndarray]
    items: dict[str, np.ndarray]
    user_ids: pl.Series
    item_ids: pl.Series


def world(users: int, items: int, seed: int) -> World:
    """Users and items with a kind each."""
    rng = np.random.default_rng(seed)
    features = [{"name": "user", "side": "user"}, {"name": "group", "side": "user"},
                {"name": "item", "side": "item"}, {"name": "kind", "side": "item"}]  # fmt: skip
    schema = Schema.model_validate({"features": features, "user_id": "user", "item_id": "item", "objectives": ("click",), "width": 32})
    ids = {"user": pl.Series(np.arange(users)), "group": pl.Series(np.arange(KINDS)),
           "item": pl.Series(np.arange(items)), "kind": pl.Series(np.arange(KINDS))}  # fmt: skip
    encoders: dict[str, Encoder] = {name: Categorical(name, Vocabulary(values)) for name, values in ids.items()}
    raw = {"user": ids["user"], "group": pl.Series(rng.integers(0, KINDS, users)),
           "item": ids["item"], "kind": pl.Series(rng.integers(0, KINDS, items))}  # fmt: skip
    columns = {name: encoders[name].encode(values) for name, values in raw.items()}
    return World(schema, {name: e.size or 0 for name, e in encoders.items()}, encoders, {n: columns[n] for n in ("user", "group")},
                 {n: columns[n] for n in ("item", "kind")}, ids["user"], ids["item"])  # fmt: skip


def write_all(folder: Path, data: World, generations: int, deltas: int, seed: int) -> list[str]:
    """Generations with an even share of the deltas behind each: their names in the order of publishing."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = build.model(Model.model_validate(MODEL), data.schema, data.sizes).eval()
    names, share = [], np.diff(np.linspace(0, deltas, generations + 1).astype(int))
    for n in range(generations):
        names.append(export(data, model, folder=folder, options=MODEL, keep=generations + 1).name)
        for _ in range(share[n]):
            names.append(write_delta(folder, _learn(model, data, rng)).name)
        _learn(model, data, rng)
    return names


@torch.no_grad()
def _learn(model: Any, data: World, rng: np.random.Generator) -> Changes:
    """Change all dense weights, some rows of the tables, and encode as many items anew."""
    items = np.sort(rng.choice(len(data.item_ids), TOUCHED, replace=False))
    rows = {}
    for name, p in model.named_parameters():
        if ".tables." in name or name.startswith("tables."):
            at = torch.from_numpy(rng.choice(len(p), TOUCHED, replace=False))
            p[at] += 0.05 * torch.randn(TOUCHED, p.shape[1])
            rows[name] = (at, p[at].clone())
        else:
            p.mul_(1 + 0.02 * torch.randn(()))
    dense = {name: t.clone() for name, t in model.state_dict().items() if name not in rows}
    said = model.encode("item", {name: torch.from_numpy(column[items]) for name, column in data.items.items()})
    bias = torch.zeros(TOUCHED, 1) if said.bias is None else said.bias
    return Changes(dense, rows, items=Entities(data.item_ids.to_numpy()[items], {}, said.flat().numpy(), bias.numpy()))


class State(msgspec.Struct):
    """Of an answer, what says which state gave it."""

    generation: int
    sequence: int
    posts: int


@dataclass
class Seen:
    """Latencies in ms from when a request was due; the states of all answers; bodies of those that are to be checked; and what failed."""

    latencies: list[float] = field(default_factory=list)
    states: set[tuple[int, int, int]] = field(default_factory=set)
    kept: list[tuple[int, bytes]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


class Load:
    """Requests at a fixed rate over kept connections, in as few operations as can be: the client shares the machine with the server.

    every   of so many answers one is kept for checking
    """

    def __init__(self, url: str, data: World, candidates: int, seed: int, every: int) -> None:
        self._host, _, self._port = url.removeprefix("http://").partition(":")
        self._every, self._candidates, self._seed = every, candidates, seed
        self._users, self._items = len(data.user_ids), len(data.item_ids)

    def request(self, n: int) -> tuple[int, np.ndarray]:
        """User and candidates of the n-th request."""
        rng = np.random.default_rng((self._seed, n))
        return int(rng.integers(self._users)), rng.integers(0, self._items, self._candidates)

    async def run(self, rate: float, seconds: float, first: int) -> Seen:
        """Ask for so many seconds."""
        seen, waiting = Seen(), asyncio.Queue[tuple[int, float, bytes] | None]()
        bodies = [self._body(n) for n in range(first, first + int(rate * seconds))]
        workers = [asyncio.create_task(self._connection(waiting, seen)) for _ in range(CONNECTIONS)]
        start = time.perf_counter()
        for i, body in enumerate(bodies):
            due = start + i / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            waiting.put_nowait((first + i, due, body))
        for _ in workers:
            waiting.put_nowait(None)
        await asyncio.gather(*workers)
        return seen

    def _body(self, n: int) -> bytes:
        user, items = self.request(n)
        body = msgspec.msgpack.encode({"user": user, "candidates": items.astype("<i8").tobytes(), "k": BEST})
        head = f"POST /score HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/msgpack\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    async def _connection(self, waiting: asyncio.Queue[tuple[int, float, bytes] | None], seen: Seen) -> None:
        reader, writer = await asyncio.open_connection(self._host, int(self._port))
        while (given := await waiting.get()) is not None:
            n, due, body = given
            try:
                writer.write(body)
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head.lower())
                answer = await reader.readexactly(int(length[1])) if length else b""
            except (OSError, asyncio.IncompleteReadError) as error:
                seen.failed.append(repr(error))
                reader, writer = await asyncio.open_connection(self._host, int(self._port))
                continue
            seen.latencies.append(1000 * (time.perf_counter() - due))
            if not head.startswith(b"HTTP/1.1 200"):
                seen.failed.append(f"{head[:20]!r} {answer[:200]!r}")
                continue
            state = msgspec.msgpack.decode(answer, type=State)
            seen.states.add((state.generation, state.sequence, state.posts))
            if n % self._every == 0:
                seen.kept.append((n, answer))
        writer.close()


async def flip(staged: Path, served: Path, names: Sequence[str], seconds: float) -> None:
    """Move one name after the other into the served folder, at even distances."""
    start = time.perf_counter()
    for i, name in enumerate(names):
        await asyncio.sleep(max(0.0, start + (i + 0.5) * seconds / len(names) - time.perf_counter()))
        os.rename(staged / name, served / name)
        if name.startswith("gen-"):
            _point(served, name)


def _point(folder: Path, name: str) -> None:
    temporary = folder / ".current"
    temporary.write_text(json.dumps({"generation": name}))
    temporary.replace(folder / "current.json")


def mixed(load: Load, seen: Seen, folder: Path) -> tuple[int, int]:
    """How many of the kept answers were recomputed, and how many differ from what their state says."""
    states: dict[tuple[int, int, int], list[tuple[int, ScoreResponse]]] = {}
    for n, answer in seen.kept:
        said = msgspec.msgpack.decode(answer, type=ScoreResponse)
        states.setdefault((said.generation, said.sequence, said.posts), []).append((n, said))
    checked = wrong = 0
    for state, answers in sorted(states.items()):
        scorer = scorer_at(folder, build.served, *state)
        for n, said in answers:
            user, items = load.request(n)
            again = scorer.score([Request(user=user, candidates=items.tolist(), k=BEST)])[0]
            logits = np.frombuffer(said.logits["click"], "<f4")
            checked += 1
            wrong += not np.allclose(logits, again.logits["click"], atol=TOLERANCE, rtol=TOLERANCE)
    return checked, wrong


def percentiles(seen: Seen) -> dict[str, float]:
    found = np.percentile(seen.latencies, [50, 99, 99.9])
    p50, p99, p999 = (round(float(x), 2) for x in found)
    return {"requests": len(seen.latencies), "p50_ms": p50, "p99_ms": p99, "p999_ms": p999, "failed": len(seen.failed)}


def measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Write, serve, ask, flip, check."""
    data = world(options.users, options.items, options.seed)
    staged, served = work / "staged", work / "served"
    served.mkdir()
    names = write_all(staged, data, options.generations + 1, options.deltas, options.seed)
    os.rename(staged / names[0], served / names[0])
    _point(served, names[0])
    command = [sys.executable, "-m", "prerank", "serve", str(served), "--port", "0", "--follow", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}) as server:
        try:
            assert server.stdout is not None
            address = re.search(r"http://\S+", server.stdout.readline())
            assert address is not None, "no server"
            with Client(address[0]) as client:
                client.wait_until_ready()
            load = Load(address[0], data, options.candidates, options.seed, max(1, int(options.rate * options.flipping / options.checked)))

            async def phases() -> list[Seen]:
                await load.run(options.rate, 3, 0)  # warm
                quiet = await load.run(options.rate, options.quiet / 2, 10**6)
                busy, _ = await asyncio.gather(load.run(options.rate, options.flipping, 2 * 10**6),
                                               flip(staged, served, names[1:], options.flipping))  # fmt: skip
                await asyncio.sleep(2)
                return [quiet, busy, await load.run(options.rate, options.quiet / 2, 3 * 10**6)]

            before, busy, after = asyncio.run(phases())
            with Client(address[0]) as client:
                last = client.health()
        finally:
            server.terminate()
    quiet = Seen(before.latencies + after.latencies, failed=before.failed + after.failed)
    checked, wrong = mixed(load, busy, served)
    told = {"quiet": percentiles(quiet), "flipping": percentiles(busy)}
    return {
        "rate": options.rate, "seconds": options.flipping, "items": options.items, "candidates": options.candidates,
        "generations": options.generations, "deltas": options.deltas, "states_seen": len(busy.states), **told,
        "p99_ratio": round(told["flipping"]["p99_ms"] / told["quiet"]["p99_ms"], 2), "recomputed": checked, "mixed": wrong,
        "last": [last["generation"], last["sequence"]], "failed_first": (busy.failed or [None])[0],
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--quiet", type=float, default=60.0, help="seconds, half of them before and half after")
    parser.add_argument("--flipping", type=float, default=300.0, help="seconds")
    parser.add_argument("--generations", type=int, default=20, help="whole ones that flip")
    parser.add_argument("--deltas", type=int, default=80)
    parser.add_argument("--users", type=int, default=6_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--checked", type=int, default=2_000, help="answers that are recomputed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/hot-update.json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="prerank-hot-") as work:
        found = measure(options, Path(work))
    Console().print(found, highlight=False)
    record.write(options.out, benchmark="hot_update", seed=options.seed, results=found)


if __name__ == "__main__":
    main()
