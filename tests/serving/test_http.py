"""A real server in a process of its own, spoken to over a socket."""

import json
import os
import signal
import socket
import threading
import time

import httpx
import msgspec
import numpy as np
import pytest

from prerank import build
from prerank.serving import Client, ClientError, GenerationError, Request, ServerError, Settings, serve
from tests.serving.test_scorer import columns
from tests.serving.world import published, server, threaded, trained_logits


@pytest.fixture(scope="module")
def url(served):
    with server(served[0], candidate_limit=1000, body_limit=200_000) as (address, _):
        call(address, "wait_until_ready", 240)
        yield address


@pytest.mark.parametrize("format", ["json", "msgpack"])
def test_served_logits_are_trained_logits_for_1000_random_pairs(url, served, data, format):
    rng = np.random.default_rng(5)
    ids = np.array(data.item_ids.to_list())
    with Client(url, format=format) as client:
        for _ in range(20):
            row, picked = int(rng.integers(len(data.user_ids))), rng.choice(len(ids), 50, replace=False)
            tab = int(rng.integers(4))
            answer = client.score(ids[picked], user=data.user_ids[row], context={"tab": tab})
            expected = dict(zip(ids[picked], trained_logits(served[1], data, columns(data, row, tab=tab), picked)[:, 0], strict=True))
            assert len(answer.items) == 50
            for item, logit in zip(answer.items, answer.logits["click"], strict=True):
                assert abs(logit - expected[item]) <= 1e-5 * max(1, abs(expected[item]))


def test_a_binary_body_is_answered_like_json(url, data):
    ids = [*data.item_ids.to_list()[:40], 10**9]
    bids = np.linspace(0.5, 2, 41).tolist()
    given = {"user": data.user_ids[3], "k": 9, "features": {"city": "lima"}, "context": {"tab": 2}, "bids": bids}
    text, binary = (call(url, "score", ids, format=f, **given) for f in ("json", "msgpack"))
    assert text.items == binary.items.tolist()
    assert text.missing == binary.missing.tolist() == [10**9]
    np.testing.assert_allclose(text.scores, binary.scores, rtol=1e-6)
    np.testing.assert_allclose(text.logits["click"], binary.logits["click"], rtol=1e-6)


def test_lists_are_welcome_in_messagepack(url, data):
    body = msgspec.msgpack.encode({"user": data.user_ids[0], "candidates": data.item_ids.to_list()[:5]})
    answer = httpx.post(f"{url}/score", content=body, headers={"Content-Type": "application/msgpack"})
    assert answer.headers["content-type"] == "application/msgpack"
    assert len(msgspec.msgpack.decode(answer.content)["items"]) == 5


@pytest.mark.parametrize("format", ["json", "msgpack"])
def test_a_batch_of_users(url, data, format):
    ids = data.item_ids.to_list()
    with Client(url, format=format) as client:
        answer = client.score_many([Request(user=data.user_ids[0], candidates=ids[:9]), Request(candidates=ids[3:6], k=2)])
        alone = client.score(ids[:9], user=data.user_ids[0])
    assert list(answer.responses[0].items) == list(alone.items)
    assert len(answer.responses[1].items) == 2
    assert answer.generation == alone.generation == 1


def call(url, method, *args, format="json", token=None, **options):
    """One call of a client that is closed again."""
    with Client(url, token, format=format) as client:
        return getattr(client, method)(*args, **options)


def score(url, body, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(f"{url}/score", content=content, headers=headers)


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", 400, None),
        (b"{", 400, None),
        (b"\xff\xfe", 400, None),
        (b'{"candidates": [1], "user": 1e400}', 422, "user"),
        (b"[" * 100_000, 422, "body"),
        (b"[]", 422, "body"),
        (b"null", 422, "body"),
        (b'{"candidates": ["\\ud800"]}', 400, None),
        ({}, 422, "candidates"),
        ({"candidates": []}, 422, "candidates"),
        ({"candidates": 5}, 422, "candidates"),
        ({"candidates": [1, None]}, 422, "candidates[1]"),
        ({"candidates": [1, 2.5]}, 422, "candidates[1]"),
        ({"candidates": [1, True]}, 422, "candidates[1]"),
        ({"candidates": ["a"]}, 422, "candidates"),
        ({"candidates": [10**30]}, 422, "candidates"),
        ({"candidates": list(range(1001))}, 422, "candidates"),
        ({"candidates": [1], "user": [1]}, 422, "user"),
        ({"candidates": [1], "user": "bob"}, 422, "user"),
        ({"candidates": [1], "user": 10**40}, 422, "user"),
        ({"candidates": [1], "k": 0}, 422, "k"),
        ({"candidates": [1], "k": -(10**30)}, 422, "k"),
        ({"candidates": [1], "k": "3"}, 422, "k"),
        ({"candidates": [1], "bids": [1, 2]}, 422, "bids"),
        ({"candidates": [1], "bids": [-1]}, 422, "bids[0]"),
        ({"candidates": [1, 2], "bids": [1, 1e300]}, 422, "bids[1]"),
        ({"candidates": [1], "bids": ["a"]}, 422, "bids[0]"),
        ({"candidates": [1], "objective": "buy"}, 422, "objective"),
        ({"candidates": [1], "objective": 3}, 422, "objective"),
        ({"candidates": [1], "featrues": {}}, 422, "body"),
        ({"candidates": [1], "features": []}, 422, "features"),
        ({"candidates": [1], "features": {"cty": 1}}, 422, "features"),
        ({"candidates": [1], "features": {"age": "old"}}, 422, "features.age"),
        ({"candidates": [1], "features": {"age": [[[]]]}}, 422, "features.age"),
        ({"candidates": [1], "features": {"income": True}}, 200, None),
        ({"candidates": [1], "features": {"city": {"a": {"b": 1}}}}, 422, "features.city"),
        ({"candidates": [1], "features": {"seen": [1, "x", None]}}, 422, "features.seen"),
        ({"candidates": [1], "features": {"seen": {"a": 1}}}, 422, "features.seen"),
        ({"candidates": [1], "features": {"seen": 10**30}}, 422, "features.seen"),
        ({"candidates": [1], "features": {"age": 10**400}}, 200, None),
        ({"candidates": [1], "context": {"tab": 10**30}}, 422, "context.tab"),
        ({"requests": []}, 422, "requests"),
        ({"requests": [{"candidates": [1]}], "candidates": [1]}, 422, "requests"),
        ({"requests": [{"candidates": [1]}, {}]}, 422, "requests[1].candidates"),
        ({"requests": [{"candidates": [1]}, {"candidates": [1], "user": "x"}]}, 422, "requests[1].user"),
        ({"requests": [{"candidates": [1]}, {"candidates": [1], "requests": []}]}, 422, "requests[1]"),
        ({"requests": [{"candidates": list(range(600))}] * 2}, 422, "candidates"),
    ],
)
def test_a_clients_fault_is_never_a_500(url, body, status, field):
    answer = score(url, body)
    assert answer.status_code == status, answer.text
    if status != 200:
        problem = answer.json()
        assert problem.get("field") == field, problem
        assert problem["detail"]
        assert "\n" not in problem["detail"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [(b"\x81", 400, None), (b"", 400, None), ({"candidates": b"1234567"}, 422, "candidates"), ({"candidates": b""}, 422, "candidates"),
     ({"candidates": b"12345678", "bids": b"12"}, 422, "bids"), ({"candidates": b"12345678", "bids": b"\xff\xff\xff\xff"}, 422, "bids[0]")],
)  # fmt: skip
def test_binary_faults(url, body, status, field):
    answer = score(url, body if isinstance(body, bytes) else msgspec.msgpack.encode(body), **{"Content-Type": "application/msgpack"})
    assert (answer.status_code, answer.json().get("field")) == (status, field), answer.text


def test_a_body_over_the_limit_is_413(url):
    answer = score(url, b'{"candidates": [1' + b" " * 300_000 + b"]}")
    assert answer.status_code == 413
    assert answer.json()["detail"]
    chunks = (b" " * 50_000 for _ in range(10))  # no Content-Length: counted while it comes
    assert httpx.post(f"{url}/score", content=chunks).status_code == 413


def test_other_routes_and_methods(url):
    assert httpx.get(f"{url}/nothing").status_code == 404
    assert httpx.get(f"{url}/nothing").json()["detail"]
    assert httpx.get(f"{url}/score").status_code == 405
    health = httpx.get(f"{url}/health").json()
    assert (health["status"], health["generation"], health["items"], health["users"]) == ("ok", 1, 300, 60)
    carried = httpx.get(f"{url}/schema").json()
    assert {f["name"] for f in carried["features"]} == {"user", "city", "age", "income", "seen"}
    assert [f["name"] for f in carried["context"]] == ["tab"]
    assert carried["calibrated"] == carried["objectives"] == ["click"]
    assert carried["limits"] == {"body_bytes": 200_000, "candidates": 1000}


def test_the_openapi_page_describes_the_body(url):
    assert "text/html" in httpx.get(f"{url}/docs").headers["content-type"]
    document = httpx.get(f"{url}/docs/openapi.json").json()
    assert set(document["paths"]) == {"/score", "/health", "/metrics", "/schema", "/items", "/items/{item_id}", "/users", "/events"}
    body = document["paths"]["/score"]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert set(document["components"]["schemas"][body.rsplit("/")[-1]]["properties"]) == {
        "candidates", "user", "features", "context", "k", "bids", "objective", "requests", "request", "log", "arm",
    }  # fmt: skip
    assert {"200", "400", "401", "413", "422"} <= set(document["paths"]["/score"]["post"]["responses"])


def counted(url, name):
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)


def test_metrics_count(url, data):
    names = ("prerank_candidates_total", "prerank_unknown_items_total", "prerank_unknown_users_total", "prerank_users_total",
             "prerank_missing_features_total", "prerank_requests_total", "prerank_request_seconds_count")  # fmt: skip
    before = {n: counted(url, n) for n in names}
    ids = data.item_ids.to_list()
    call(url, "score", [*ids[:7], 10**9], user=data.user_ids[0])
    call(url, "score", [*ids[:4], 10**9, 10**8], user=10**9, context={"tab": 1}, format="msgpack")
    score(url, b"{")
    found = [counted(url, n) - before[n] for n in names]
    assert found == [14, 3, 1, 2, 1 + 4, 3, 3]
    assert counted(url, "prerank_generation") == 1


def test_the_client_says_what_went_wrong(url):
    with pytest.raises(ClientError, match=r"answered 422: candidates: must hold at least one id") as caught:
        call(url, "score", [])
    assert (caught.value.status, caught.value.field) == (422, "candidates")
    with pytest.raises(ClientError, match=r"server http://127\.0\.0\.1:1: ") as caught:
        call("http://127.0.0.1:1", "health")
    assert caught.value.status is None


def test_a_token_is_asked_for_and_health_is_open(served, data):
    with threaded(served[0], token="sesame") as address:
        ids = data.item_ids.to_list()[:3]
        assert call(address, "score", ids, token="sesame").items
        for token in (None, "sesam", "sesame2"):
            with pytest.raises(ClientError) as caught:
                call(address, "score", ids, token=token)
            assert caught.value.status == 401
        for path in ("/metrics", "/schema", "/docs", "/docs/openapi.json"):
            assert httpx.get(address + path).status_code == 401
        assert httpx.get(f"{address}/metrics", headers={"Authorization": "Bearer sesame"}).status_code == 200


def test_sigterm_answers_what_is_in_flight(served, data):
    ids = data.item_ids.to_list()
    body = json.dumps({"requests": [{"user": data.user_ids[0], "candidates": ids}] * 300}).encode()
    with server(served[0]) as (address, process):
        call(address, "wait_until_ready", 240)
        host, port = address.removeprefix("http://").split(":")
        head = f"POST /score HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head + body[:1000])
            time.sleep(0.3)  # the request is in flight: its body is still coming
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            connection.sendall(body[1000:])
            answer = b""
            while chunk := connection.recv(1 << 20):
                answer += chunk
        assert answer.startswith(b"HTTP/1.1 200")
        assert len(json.loads(answer.split(b"\r\n\r\n", 1)[1])["responses"]) == 300
        assert process.wait(60) == 0
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((host, int(port)))


def test_a_port_in_use_is_one_line_before_anything_is_loaded(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=rf"^port {port} on 127.0.0.1: address already in use; choose another with --port$"):
            serve(Settings(tmp_path), build.served, port=port)


def test_a_host_that_is_not_ours(tmp_path):
    with pytest.raises(ServerError, match=r"^port 0 on 203.0.113.1: "):
        serve(Settings(tmp_path), build.served, host="203.0.113.1", port=0)


def test_nothing_to_serve_is_one_line(tmp_path):
    with pytest.raises(GenerationError, match=r"^generation folder '.*': holds no current.json; `prerank export` writes one$"):
        serve(Settings(tmp_path), build.served, port=0)


def test_a_new_generation_is_swapped_in_while_requests_go_on(data, tmp_path):
    published(tmp_path, data, "mf")
    ids = data.item_ids.to_list()
    with threaded(tmp_path, follow_seconds=0.05) as address:
        seen, stop = [], threading.Event()

        def ask():
            with Client(address) as asking:
                while not stop.is_set():
                    seen.append(asking.score(ids[:10]).generation)

        asker = threading.Thread(target=ask)
        asker.start()
        deadline = time.monotonic() + 120
        while not seen and time.monotonic() < deadline:
            time.sleep(0.01)
        published(tmp_path, data, "mf", seed=1)
        while call(address, "health")["generation"] != 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        stop.set()
        asker.join()
        assert seen == sorted(seen)
        assert seen[0] == 1
        assert call(address, "health")["generation"] == 2
        assert counted(address, "prerank_generation") >= 2


def test_a_bad_new_generation_is_refused_and_the_old_one_stays(data, tmp_path):
    published(tmp_path, data, "mf")
    with threaded(tmp_path, follow_seconds=0.05) as address:
        (tmp_path / "gen-000002").mkdir()
        (tmp_path / "gen-000002" / "meta.json").write_text("{}")
        (tmp_path / "new").write_text('{"generation": "gen-000002"}')
        os.replace(tmp_path / "new", tmp_path / "current.json")
        deadline = time.monotonic() + 120
        while not counted(address, "prerank_failed_reloads_total") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert counted(address, "prerank_failed_reloads_total") == 1
        assert call(address, "score", data.item_ids.to_list()[:3]).generation == 1


@pytest.mark.slow
def test_several_workers_share_a_port_and_their_counts(served, data):
    with server(served[0], workers=2) as (address, _):
        call(address, "wait_until_ready", 240)
        for _ in range(20):
            call(address, "score", data.item_ids.to_list()[:5])
        assert counted(address, "prerank_candidates_total") == 100
