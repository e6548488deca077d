"""Users' memory outside the generation: read fresh for each request, in one round trip; a store that is away costs nothing but warmth."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from prerank import build
from prerank.config import Model, Synergy
from prerank.serving import Client, GenerationError, Request, Scorer, export, open_current
from prerank.serving.memory import patient
from tests.serving.test_http import counted
from tests.serving.test_recorder import events, wait
from tests.serving.world import OPTIONS, World, server, threaded, trained_logits
from tests.stream.servers import RedisServer

NAMES = ("cts of user", "cts of user, negative", "cms of user")


def published(folder: Path, data: World, store: str, inputs: str = "vector_count_age", name: str = "dssm", **options: Any) -> Any:
    """A generation of a random two-tower whose memories lie in the store, and the model, which reads and writes it."""
    told = {"inputs": inputs}
    synergy = Synergy.model_validate({"cts": {"negatives": True, **told}, "cms": {"ranker": {"name": "mlp", "hidden": [8]}, **told},
                                      "store": store})  # fmt: skip
    torch.manual_seed(0)
    made: Any = build.model(Model.model_validate(OPTIONS[name]), data.schema, data.sizes, synergy, space="s").eval()
    with torch.no_grad():
        for name_, parameter in made.named_parameters():
            parameter.mul_(8.0 if "table" in name_ else 3.0 if "project" in name_ else 1.0)
    for memory in made.memories:
        for outside in memory.outside():
            outside.begin()
    export(data, made, folder=folder, options=OPTIONS[name], synergy=synergy.model_dump(mode="json"), space="s", **options)
    return made


def write(made: Any, rows: list[int], seed: int, cache: int | None = None) -> None:
    """Blend a random vector into the memories of user rows: into all three, or one."""
    random = torch.Generator().manual_seed(seed)
    ts = torch.full((len(rows),), 5_000_000 * (seed + 1))
    caches = [c for name in ("cts of user", "cms of user") for c in made.embeddings.attached[name].caches]
    for n, one in enumerate(caches):
        if cache in (None, n):
            one.write(torch.tensor(rows), torch.randn(len(rows), one.width, generator=random), ts)


def expected(made: Any, data: World, row: int) -> np.ndarray:
    """What the trainer's own model says of all items."""
    users = {name: column[row : row + 1] for name, column in data.users.items()} | {"tab": data.encoders["tab"].encode([1])}
    return trained_logits(made, data, users, np.arange(len(data.item_ids)))[:, 0]


def asked(data: World, row: int) -> Request:
    return Request(user=data.user_ids[row], candidates=data.item_ids.to_list(), context={"tab": 1})


def logits(data: World, response: Any) -> np.ndarray:
    """In the order of the items."""
    by_item = dict(zip(response.items, response.logits["click"], strict=True))
    return np.array([by_item[i] for i in data.item_ids.to_list()])


def rows_of(data: World) -> list[int]:
    return data.users["user"].tolist()


@pytest.fixture(params=["redis", "lmdb"])
def store(request, tmp_path):
    if request.param == "lmdb":
        yield f"lmdb:{tmp_path}/m.lmdb"
        return
    one = RedisServer()
    yield f"unix://{one.socket}"
    one.close()


@pytest.mark.parametrize("inputs", ["vector", "vector_count_age", "count_age"])
def test_memory_is_that_of_now(data, tmp_path, store, inputs):
    made = published(tmp_path / "g", data, store, inputs)
    write(made, [100], 0)
    scorer = Scorer(open_current(tmp_path / "g"), build.served)
    assert scorer._users._tape is not None  # the tower is still played in one call
    before = [scorer.score([asked(data, r)])[0] for r in range(3)]
    assert [b.memory for b in before] == [dict.fromkeys(NAMES, 0)] * 3
    write(made, rows_of(data)[:2], 1)
    write(made, rows_of(data)[:1], 2, cache=0)
    for plain in made.embeddings.attached.values():  # the generation's clock is that of its export
        for cache in plain.caches:
            cache.clock.copy_(torch.tensor(0))
    scorer.plain.load_state_dict(made.state_dict())
    after = [scorer.score([asked(data, r)])[0] for r in range(3)]
    together = scorer.score([asked(data, r) for r in range(3)])
    assert [tuple(a.memory.values()) for a in after] == [(2, 1, 1), (1, 1, 1), (0, 0, 0)]
    for row in range(3):
        np.testing.assert_allclose(logits(data, after[row]), expected(made, data, row), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(logits(data, together[row]), logits(data, after[row]), rtol=1e-4, atol=1e-4)
        assert together[row].memory == after[row].memory
    moved = [np.abs(logits(data, a) - logits(data, b)).max() for a, b in zip(after, before, strict=True)]
    assert moved[0] > 1e-3
    assert moved[1] > 1e-3
    assert moved[2] < 1e-5


def test_vectors_of_the_export_do_not_stand_in_for_memory(data, tmp_path, store):
    made = published(tmp_path / "g", data, store, users=True)
    scorer = Scorer(open_current(tmp_path / "g"), build.served)
    write(made, rows_of(data)[:1], 1)
    (after,) = scorer.score([Request(user=data.user_ids[0], candidates=data.item_ids.to_list()[:5])])
    assert after.memory == dict.fromkeys(NAMES, 1)


def test_a_request_is_one_round_trip(data, tmp_path):
    one = RedisServer()
    try:
        published(tmp_path / "g", data, f"unix://{one.socket}")
        scorer = Scorer(open_current(tmp_path / "g"), build.served)
        import redis

        with redis.Redis.from_url(f"unix://{one.socket}") as client:
            client.config_resetstat()
            scorer.score([asked(data, r) for r in range(5)])
            calls = {name: told["calls"] for name, told in client.info("commandstats").items()}
        assert calls["cmdstat_mget"] == 1
        assert set(calls) <= {"cmdstat_mget", "cmdstat_config|resetstat", "cmdstat_client|setinfo", "cmdstat_hello", "cmdstat_info"}
    finally:
        one.close()


def test_a_store_that_goes_away_makes_users_cold_and_is_found_again(data, tmp_path, redis_server):
    made = published(tmp_path / "g", data, f"unix://{redis_server.socket}")
    log, ids = f"sqlite:///{tmp_path}/events.db", data.item_ids.to_list()
    ask = {"user": data.user_ids[0], "context": {"tab": 1}}
    with server(tmp_path / "g", log=log, follow_seconds=0.1) as (url, _), Client(url) as client:
        client.wait_until_ready(240)
        never = client.score(ids, **ask)
        write(made, rows_of(data)[:1], 1)
        warm = client.score(ids, **ask)
        assert warm.memory == dict.fromkeys(NAMES, 1)
        assert client.health()["status"] == "ok"
        redis_server.kill()
        begun = time.monotonic()
        cold = [client.score(ids, **ask) for _ in range(30)]
        assert time.monotonic() - begun < 3
        assert all(c.memory == {} for c in cold)
        for one in (cold[0], cold[-1]):
            np.testing.assert_allclose(logits(data, one), logits(data, never), atol=1e-5)
        health = client.health()
        assert health["status"] == "degraded"
        assert "cannot be reached" in health["why"][0]
        assert counted(url, "prerank_cold_users_total") == 30
        posted = httpx.post(f"{url}/items", json={"id": 10**6, "features": {"price": 2.0}})
        assert posted.status_code == 200, posted.text
        assert client.score([10**6], **ask).items == [10**6]
        redis_server.start()
        wait(lambda: client.health()["status"] == "ok")
        again = client.score(ids, **ask)
        assert again.memory == dict.fromkeys(NAMES, 1)
        np.testing.assert_allclose(logits(data, again), logits(data, warm), atol=1e-5)
        wait(lambda: counted(url, "prerank_logged_events_total") == 33 * 300 + 1)
    versions = {e.request: e.memory for e in events(log)}
    assert [versions[a.request] for a in (never, warm, cold[0], again)] == ["0.0.0", "1.1.1", "cold", "1.1.1"]


def test_a_store_that_hangs_costs_a_request_its_timeout_and_the_others_nothing(data, tmp_path):
    one = RedisServer()
    try:
        published(tmp_path / "g", data, f"unix://{one.socket}")
        scorer = Scorer(open_current(tmp_path / "g"), patient(build.served, 0.05))
        scorer.score([asked(data, 0)])
        assert one._process is not None
        os.kill(one._process.pid, signal.SIGSTOP)
        times = []
        for _ in range(50):
            begun = time.monotonic()
            assert scorer.score([asked(data, 0)])[0].memory == {}
            times.append(time.monotonic() - begun)
        os.kill(one._process.pid, signal.SIGCONT)
        assert 0.04 < times[0] < 0.5
        assert np.median(times[1:]) < 0.02
        assert "cannot be reached" in scorer.cold[0]
        time.sleep(1.1)
        assert scorer.score([asked(data, 0)])[0].memory == dict.fromkeys(NAMES, 0)
        assert scorer.cold == []
    finally:
        one.close()


def test_a_store_that_is_away_from_the_start_is_found_later(data, tmp_path, redis_server):
    made = published(tmp_path / "g", data, f"unix://{redis_server.socket}")
    write(made, rows_of(data)[:1], 1)
    redis_server.kill()
    with threaded(tmp_path / "g", follow_seconds=0.1) as url, Client(url) as client:
        assert client.score([1], user=data.user_ids[0]).memory == {}
        assert client.health()["status"] == "degraded"
        redis_server.start()
        wait(lambda: client.health()["status"] == "ok")
        assert client.score([1], user=data.user_ids[0]).memory == dict.fromkeys(NAMES, 1)


def test_a_store_of_another_model_is_refused(data, tmp_path):
    published(tmp_path / "g", data, f"lmdb:{tmp_path}/m.lmdb")
    generation = open_current(tmp_path / "g")
    generation.meta.space = "other"
    with pytest.raises(GenerationError, match="must be of width and space"):
        Scorer(generation, build.served)


def test_scores_are_those_of_the_version_that_the_answer_names(data, tmp_path):
    """Memory moves while requests are answered: each answer is of one version, and that version's scores are its own."""
    one = RedisServer()
    try:
        made = published(tmp_path / "g", data, f"unix://{one.socket}", inputs="vector")
        row, right, stop = rows_of(data)[0], {}, threading.Event()
        answers: list[Any] = []
        with threaded(tmp_path / "g") as url:

            def ask() -> None:
                with Client(url) as client:
                    while not stop.is_set():
                        answers.append(client.score(data.item_ids.to_list(), user=data.user_ids[0], context={"tab": 1}))

            asking = [threading.Thread(target=ask) for _ in range(2)]
            for thread in asking:
                thread.start()
            counts = [0, 0, 0]
            for n in range(60):
                right[tuple(counts)] = expected(made, data, 0)
                write(made, [row], n, cache=n % 3)
                counts[n % 3] += 1
            right[tuple(counts)] = expected(made, data, 0)
            stop.set()
            for thread in asking:
                thread.join()
        versions = [tuple(a.memory.values()) for a in answers]
        assert len(set(versions)) > 5
        for answer, version in zip(answers, versions, strict=True):
            np.testing.assert_allclose(logits(data, answer), right[version], rtol=1e-4, atol=1e-4)
    finally:
        one.close()
