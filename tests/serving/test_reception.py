"""POST /events: durable when it answers, and what is no event is said."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed

import httpx
import pytest

from prerank.serving import Client
from prerank.stream import Feedback, Impression, Upsert
from tests.serving.test_recorder import events
from tests.serving.world import server, threaded

GOOD = {"type": "feedback", "request": "r", "item": 1, "ts": 5, "kind": "click"}


@pytest.fixture(scope="module")
def running(served, tmp_path_factory):
    log = f"sqlite:///{tmp_path_factory.mktemp('log')}/events.db?partitions=3"
    with threaded(served[0], log=log, token="sesame", body_limit=200_000) as url:
        yield url, log


def post(url, token="sesame", **options):
    return httpx.post(f"{url}/events", headers={"Authorization": f"Bearer {token}"}, **options)


def test_what_is_taken_is_in_the_log_and_the_rest_is_said(running):
    url, log = running
    before = len(events(log))
    bad = [{**GOOD, "kind": 7}, {"type": "purchase", "ts": 1}, {"type": "impression", "request": 1, "item": 1, "ts": 1},
           {"type": "impression", "request": 1, "user": 1, "item": 1, "ts": 1, "features": {"income": "much"}}, 5,
           {**GOOD, "item": "é" * 800}]  # fmt: skip
    answer = post(url, json=[GOOD, *bad, {**GOOD, "ts": 6}])
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["accepted"] == 2
    assert [(r["index"], r["reason"]) for r in told["rejected"]] == [(1, "malformed"), (2, "malformed"), (3, "malformed"), (4, "malformed"),
                                                                    (5, "malformed"), (6, "long_id")]  # fmt: skip
    assert len(events(log)) == before + 2
    assert post(url, json=GOOD).json() == {"accepted": 1, "rejected": []}
    assert len(events(log)) == before + 3


@pytest.mark.parametrize(("content", "status"), [
    (b"", 400), (b"  ", 400), (b"[", 400), (b"[{}, ", 400), (b"\xff", 200), (b"{", 200), (b"5", 200), (b"[]", 200), (b"[" * 100_000, 400),
    (b"[" + b"{}," * 10_000 + b"{}]", 422), (b" " * 300_000, 413),
])  # fmt: skip
def test_a_body_that_is_none_is_a_clients_fault(running, content, status):
    answer = post(running[0], content=content)
    assert answer.status_code == status, answer.text
    if status == 200:
        assert answer.json()["accepted"] == 0


def test_the_token_is_asked_for(running):
    assert post(running[0], token="open", json=GOOD).status_code == 401


def test_the_client_sends(running):
    url, log = running
    before = len(events(log))
    given = [Impression(request=1, user="u", item=2, ts=3, features={"income": 2.5}), Feedback(request=1, item=2, ts=4, kind="click"),
             Upsert(side="item", id=4, ts=5, features={"tags": ["a"]})]  # fmt: skip
    with Client(url, "sesame") as client:
        assert client.send(given) == {"accepted": 3, "rejected": []}
    found = events(log)
    assert len(found) == before + 3
    assert all(event in found for event in given)


@pytest.mark.slow
def test_several_workers_write_one_log(served, data, tmp_path):
    log = f"sqlite:///{tmp_path}/events.db"
    with server(served[0], log=log, workers=2) as (url, _):
        with Client(url) as client:
            client.wait_until_ready(240)
        for n in range(20):
            assert httpx.post(f"{url}/events", json=[{**GOOD, "request": n}]).json()["accepted"] == 1
            assert httpx.post(f"{url}/score", json={"candidates": data.item_ids.to_list()[:5]}).status_code == 200
    assert len(events(log)) == 20 + 100


def test_a_log_that_hangs_refuses_events_and_answers_scores(served, data, tmp_path, monkeypatch):
    """A writer that holds the file: /events waits, then more of it is refused at once, and /score does not notice."""
    monkeypatch.setattr("prerank.serving.commits.CALLS", 100)
    path = tmp_path / "events.db"
    with threaded(served[0], log=f"sqlite:///{path}") as url, Client(url) as client:
        with sqlite3.connect(path, isolation_level=None) as writer:
            writer.execute("BEGIN IMMEDIATE")
            with ThreadPoolExecutor(110) as pool:
                waiting = [pool.submit(post, url, json=GOOD, timeout=60) for _ in range(105)]
                assert next(as_completed(waiting, timeout=25)).result().status_code == 503
                begun = time.monotonic()
                for _ in range(10):
                    client.score(data.item_ids.to_list() * 80, k=3)  # large: to a thread
                assert time.monotonic() - begun < 5
                writer.execute("ROLLBACK")
                statuses = Counter(one.result().status_code for one in waiting)
        assert statuses == {200: 100, 503: 5}
        writer.close()


def test_a_tick_is_no_clients_to_send(running):
    url, log = running
    before = len(events(log))
    told = post(url, json=[{"type": "tick", "ts": 5}]).json()
    assert (told["accepted"], told["rejected"][0]["reason"]) == (0, "tick")
    assert len(events(log)) == before
