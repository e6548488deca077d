"""A server in a process of its own, asked without a pause while generations and deltas flip: nothing fails, nothing is mixed."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np

from prerank import build
from prerank.serving import Client, Request
from prerank.serving.delta import write_delta
from prerank.serving.live import scorer_at
from tests.serving.deltas import changes, learned
from tests.serving.test_live import EVERY
from tests.serving.world import published, server, world


def test_hot_flips_under_concurrent_requests(tmp_path: Path) -> None:
    data = world()
    made = published(tmp_path, data)
    ids, user = data.item_ids.to_list()[:40], data.user_ids[5]
    answers: list[tuple[tuple[int, int, int], tuple[float, ...]]] = []
    failed: list[Exception] = []
    stop = threading.Event()
    new = {"id": 10**6, "features": {"price": 2.5}}
    with server(tmp_path, follow_seconds=0.05) as (url, _):

        def ask() -> None:
            try:
                with Client(url) as client:
                    while not stop.is_set():
                        said = client.score([*ids, new["id"]], user=user)
                        state = (said.generation, said.sequence, said.posts)
                        answers.append((state, tuple(zip(said.items, said.logits["click"], strict=True))))
            except Exception as error:
                failed.append(error)

        with Client(url) as client:
            client.wait_until_ready(240)
            threads = [threading.Thread(target=ask) for _ in range(3)]
            for thread in threads:
                thread.start()
            for n in range(2):  # of each generation two deltas and a posted item
                for _ in range(2):
                    after = learned(made, n)
                    write_delta(tmp_path, changes(made, after, data, EVERY))
                    made = after
                    time.sleep(0.3)
                posts = client._send("POST", "/items", json=new).json()["posts"]
                assert posts == n + 1
                wait(client, lambda h, n=n: (h["generation"], h["sequence"]) == (n + 1, 2))
                time.sleep(0.2)
                made = published(tmp_path, data, seed=n + 7)
                wait(client, lambda h, n=n: h["generation"] == n + 2)
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed
    states = {state for state, _ in answers}
    assert {state[0] for state in states} == {1, 2, 3}
    assert len(states) >= 6
    request = [Request(user=user, candidates=[*ids, new["id"]])]
    expected = {}
    for state in states:
        said = scorer_at(tmp_path, build.served, *state).score(request)[0]
        expected[state] = dict(zip(said.items, said.logits["click"], strict=True))
    for state, said in answers:
        assert dict(said).keys() == expected[state].keys()
        np.testing.assert_allclose([z for _, z in said], [expected[state][i] for i, _ in said], atol=1e-6)
    weights = {state[:2]: said[ids[0]] for state, said in expected.items()}  # posts leave them as they are
    together = list(weights.values())
    assert all(abs(a - b) > 1e-4 for i, a in enumerate(together) for b in together[:i])  # states can be told apart


def wait(client: Client, true) -> None:
    deadline = time.monotonic() + 60
    while not true(client.health()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
