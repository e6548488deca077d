"""What was answered is what is logged, and a log that is away costs no answer."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from prerank import build
from prerank.serving import Client, Settings, create
from prerank.serving.live import scorer_at
from prerank.serving.measures import Measures
from prerank.serving.messages import Request
from prerank.serving.recorder import Recorder
from prerank.stream import Feedback, Impression, Log, LogError, decode, open_log, partition_of
from tests.serving.test_http import counted
from tests.serving.world import server, threaded
from tests.stream.servers import Brokers, RedisServer

CLICK = {"type": "feedback", "request": 1, "item": 5, "ts": 5, "kind": "click"}


def events(log: Log | str) -> list[Any]:
    """All of a log, partition by partition."""
    opened = open_log(log, create=False) if isinstance(log, str) else log
    found = [decode(e.data) for p in range(opened.partitions) for e in opened.read(p, 0, 100_000)]
    if isinstance(log, str):
        opened.close()
    return found


def wait(what, seconds: float = 20.0) -> Any:
    """Until it is true, or an error of the log's is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := what():
                return found
        except LogError:
            pass
        time.sleep(0.02)
    raise AssertionError("it never came")


@pytest.mark.parametrize("format", ["json", "msgpack"])
def test_an_answer_is_logged_as_it_was_given(served, data, tmp_path, format):
    url, ids, user = f"sqlite:///{tmp_path}/events.db?partitions=2", data.item_ids.to_list(), data.user_ids[3]
    before = time.time() * 1000
    with threaded(served[0], log=url) as address, Client(address, format=format) as client:
        bids = np.linspace(0.1, 0.9, 30).astype(np.float32)
        mine = client.score(ids[:30], user=user, k=7, features={"city": "mars"}, context={"tab": 2}, bids=bids, request="r-1")
        made = client.score(ids[:9], k=3)
        other = client.score(ids[:9], user=user, k=3)
        client.score(ids[:9], user=user, k=3, log=False)
        assert mine.request == "r-1"
        assert len({made.request, other.request}) == 2
        wait(lambda: counted(address, "prerank_logged_events_total") == 13)
        assert client.health()["status"] == "ok"
    found = events(url)
    assert len(found) == 13
    assert all(isinstance(e, Impression) for e in found)
    own = sorted((e for e in found if e.request == "r-1"), key=lambda e: e.position)
    assert [e.item for e in own] == list(mine.items)
    assert [e.position for e in own] == list(range(7))
    np.testing.assert_allclose([e.score for e in own], mine.probabilities["click"], rtol=1e-6)
    np.testing.assert_allclose([e.bid for e in own], [bids[ids.index(i)] for i in mine.items], rtol=1e-6)
    assert {(e.user, e.generation, e.sequence, e.posts, e.memory, e.experiment, e.arm) for e in own} == {(user, 1, 0, 0, None, None, None)}
    assert all(before <= e.ts <= time.time() * 1000 and 0 < e.latency < 10_000 for e in own)
    assert all(e.features == own[0].features for e in own)
    assert {n: own[0].features[n] for n in ("city", "tab")} == {"city": "mars", "tab": 2}
    assert [e.user for e in found if e.request == made.request] == [None] * 3


def test_from_what_was_logged_the_same_scores_come_again(served, data, tmp_path):
    """Features as they were served, and the state that served them: nobody has to know what is stored."""
    url = f"sqlite:///{tmp_path}/events.db"
    with threaded(served[0], log=url) as address, Client(address) as client:
        for row in range(10):
            client.score(data.item_ids.to_list()[:40], user=data.user_ids[row], k=40, context={"tab": row % 4} if row % 2 else {})
        wait(lambda: counted(address, "prerank_logged_events_total") == 400)
    found = events(url)
    state = scorer_at(served[0], build.served, found[0].generation, found[0].sequence, found[0].posts)
    for request in dict.fromkeys(e.request for e in found):
        own = [e for e in found if e.request == request]
        context = {n: v for n, v in own[0].features.items() if n == "tab"}
        features = {n: v for n, v in own[0].features.items() if n != "tab"}
        stranger = Request(user=None, candidates=[e.item for e in own], features={**features, "user": own[0].user}, context=context)
        (again,) = state.score([stranger])
        np.testing.assert_allclose(again.probabilities["click"], [e.score for e in own], rtol=1e-5)


def test_what_cannot_be_an_event_is_counted_and_its_features_mended(served, data, tmp_path):
    url, ids = f"sqlite:///{tmp_path}/events.db", data.item_ids.to_list()
    with threaded(served[0], log=url) as address, Client(address) as client:
        huge = httpx.post(f"{address}/score", content=json.dumps({"candidates": ids[:2], "features": {"age": 10**400}}))
        assert huge.status_code == 200
        for wrong in ("", "x" * 1025, 2**63):
            refused = httpx.post(f"{address}/score", json={"candidates": ids[:2], "request": wrong} if wrong != 2**63 else None,
                                 content=None if wrong != 2**63 else b'{"candidates":[1],"request":9223372036854775808}')  # fmt: skip
            assert (refused.status_code, refused.json()["field"]) == (422, "request")
        wait(lambda: counted(address, "prerank_logged_events_total") == 2)
        assert client.health()["status"] == "ok"
    assert [e.features["age"] for e in events(url)] == [None, None]


def test_a_log_that_is_away_costs_no_answer_and_is_found_again(served, data, redis_server):
    url, ids = redis_server.url("events", 2), data.item_ids.to_list()
    redis_server.kill()
    with threaded(served[0], log=url) as address, Client(address) as client:
        assert client.score(ids[:9], k=3).items
        health = client.health()
        assert health["status"] == "degraded"
        assert health["why"][0].startswith("log: ")
        refused = httpx.post(f"{address}/events", json=CLICK)
        assert refused.status_code == 503
        assert "is away, send them again" in refused.json()["detail"]
        redis_server.start()
        wait(lambda: len(events(url)) == 3)
        wait(lambda: client.health()["status"] == "ok")
        redis_server.kill()
        begun = time.monotonic()
        for _ in range(20):
            client.score(ids[:9], k=3)
        assert time.monotonic() - begun < 5
        wait(lambda: client.health()["status"] == "degraded")
        redis_server.start()
        wait(lambda: len(events(url)) >= 63)
        assert len({(e.request, e.item) for e in events(url)}) == 63
        assert counted(address, "prerank_dropped_events_total") == 0


def test_what_does_not_fit_is_dropped_and_counted(served, data, tmp_path, monkeypatch):
    monkeypatch.setattr("prerank.serving.recorder.MESSAGES", 10)
    monkeypatch.setattr("prerank.serving.recorder.Recorder.__init__.__defaults__", (10,))
    server = RedisServer()
    server.kill()
    try:
        with threaded(served[0], log=server.url("events", 1)) as address, Client(address) as client:
            for _ in range(7):
                client.score(data.item_ids.to_list()[:9], k=3)
            wait(lambda: counted(address, "prerank_dropped_events_total") == 12)
            assert client.health()["status"] == "degraded"
    finally:
        server.start()
        server.close()


def test_nobody_is_told_the_password(served, data):
    with threaded(served[0], log="redis://me:sesame@127.0.0.1:1/0?log=events") as address, Client(address) as client:
        client.score(data.item_ids.to_list()[:3])
        refused = httpx.post(f"{address}/events", json=CLICK)
        assert refused.status_code == 503
        assert "sesame" not in refused.text + str(wait(client.health)["why"])
    assert Recorder("redis://me:sesame@127.0.0.1:1/0?log=events", Measures())._log.name == "redis://127.0.0.1:1/0?log=events"


def test_a_wrong_address_is_an_error_at_once(served):
    with pytest.raises(ValueError, match="must be an address that begins with"):
        create(Settings(served[0], log="events.db"), build.served)


def test_what_was_answered_last_is_logged_when_the_server_ends(served, data, tmp_path):
    url = f"sqlite:///{tmp_path}/events.db"
    with server(served[0], log=url) as (address, _), Client(address) as client:
        client.wait_until_ready(240)
        for _ in range(20):
            client.score(data.item_ids.to_list()[:30], user=data.user_ids[0])
    assert len(events(url)) == 600


def test_an_answer_and_its_feedback_share_a_partition(served, data, tmp_path):
    url = f"sqlite:///{tmp_path}/events.db?partitions=4"
    with threaded(served[0], log=url) as address, Client(address) as client:
        ids = [client.score(data.item_ids.to_list()[:5], k=2).request for _ in range(12)]
        wait(lambda: counted(address, "prerank_logged_events_total") == 24)
    log = open_log(url)
    for p in range(4):
        assert {decode(e.data).request for e in log.read(p, 0)} == {i for i in ids if partition_of(i.encode(), 4) == p}
    log.close()


def test_kafka_takes_it(served, data):
    brokers = Brokers()
    url = brokers.url("served")
    with threaded(served[0], log=url) as address, Client(address) as client:
        said = client.score(data.item_ids.to_list()[:9], k=3)
        assert client.send([Feedback(request=said.request, item=said.items[0], ts=5, kind="click")])["accepted"] == 1
        wait(lambda: counted(address, "prerank_logged_events_total") == 3)
    assert {type(e) for e in events(url)} == {Impression, Feedback}


def test_no_log_no_ids(served, data, tmp_path: Path):
    with threaded(served[0]) as address:
        said = httpx.post(f"{address}/score", json={"candidates": data.item_ids.to_list()[:3]}).json()
        assert not {"request", "arm", "experiment", "memory"} & set(said)
        assert httpx.post(f"{address}/score", json={"candidates": [1], "request": 7}).json()["request"] == 7
        assert httpx.post(f"{address}/events", json=[]).status_code == 409
