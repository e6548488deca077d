"""Items and users that are told to a running server: scorable at once, by every worker, over whatever generation comes."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest
import torch

from prerank import build
from prerank.serving import Client, ClientError, MessageError
from prerank.serving.delta import write_delta
from prerank.serving.live import Live, scorer_at
from prerank.serving.posts import JOURNAL, Journal, Post
from tests.serving.deltas import changes, learned
from tests.serving.test_live import EVERY
from tests.serving.world import published, server, threaded, trained_logits, world

NEW = {"id": 10**6, "features": {"tags": ["b", "c"], "price": 4.5}}


def expected(made, data, user: int, item: dict) -> float:
    """What training's code says of an item that nobody trained on: its id is 'unknown'."""
    columns = {"item": np.array([2], np.int32), "tags": data.encoders["tags"].encode([item.get("tags")]),
               "price": data.encoders["price"].encode([item.get("price")])}  # fmt: skip
    one = type(data)(data.schema, data.sizes, data.encoders, data.users, columns, data.user_ids, pl.Series([item.get("id", 0)]))
    asking = {name: column[user : user + 1] for name, column in data.users.items()}
    asking["tab"] = data.encoders["tab"].missing()
    return float(trained_logits(made, one, asking, np.array([0]))[0, 0])


@pytest.fixture
def told(tmp_path: Path):
    data = world()
    made = published(tmp_path, data)
    with threaded(tmp_path, follow_seconds=0.1) as url:
        yield url, data, made, tmp_path


def score(url: str, data, items: list, user: int = 3):
    with Client(url) as client:
        return client.score(items, user=data.user_ids[user])


def test_a_posted_item_is_scored_as_the_item_tower_says(told) -> None:
    url, data, made, folder = told
    known = data.item_ids.to_list()[:5]
    before = score(url, data, [*known, NEW["id"]])
    assert before.missing == [NEW["id"]]
    answer = httpx.post(f"{url}/items", json=NEW)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"accepted": 1, "generation": 1, "sequence": 0, "posts": 1}
    after = score(url, data, [*known, NEW["id"]])
    assert after.missing == []
    assert (after.generation, after.sequence, after.posts) == (1, 0, 1)
    found = dict(zip(after.items, after.logits["click"], strict=True))
    assert abs(found[NEW["id"]] - expected(made, data, 3, NEW["features"])) < 1e-4
    assert {i: found[i] for i in known} == dict(zip(before.items, before.logits["click"], strict=True))
    again = scorer_at(folder, build.served, 1, 0, 1)
    with Client(url) as client:
        assert client.health()["posts"] == 1
    assert again.generation.meta.items == 301
    # Of a changed item the last word counts; a known one can be replaced.
    httpx.post(f"{url}/items", json=[{"id": NEW["id"], "features": {}}, {"id": known[0], "features": {"price": 1.0}}]).raise_for_status()
    found = dict(zip((later := score(url, data, [NEW["id"], known[0]])).items, later.logits["click"], strict=True))
    assert abs(found[NEW["id"]] - expected(made, data, 3, {})) < 1e-4


def test_a_removed_item_is_missing_until_it_is_posted_again(told) -> None:
    url, data, _, _ = told
    one, other = data.item_ids.to_list()[:2]
    assert httpx.delete(f"{url}/items/{one}").json()["accepted"] == 1
    answer = score(url, data, [one, other])
    assert (answer.items, answer.missing) == ([other], [one])
    assert httpx.delete(f"{url}/items/{one}").status_code == 404
    httpx.post(f"{url}/items", json={"id": one, "features": {"price": 2.0}}).raise_for_status()
    assert score(url, data, [one, other]).missing == []


def test_posts_outlive_deltas_generations_and_the_server(told) -> None:
    """A new item tower encodes them anew."""
    url, data, made, folder = told
    removed = data.item_ids[0]
    httpx.post(f"{url}/items", json=NEW).raise_for_status()
    httpx.delete(f"{url}/items/{removed}").raise_for_status()
    after = learned(made, 1)
    write_delta(folder, changes(made, after, data, EVERY))
    wait(lambda: score(url, data, [NEW["id"]]).sequence == 1)
    answer = score(url, data, [NEW["id"], removed])
    assert answer.missing == [removed]
    assert abs(answer.logits["click"][0] - expected(after, data, 3, NEW["features"])) < 1e-4
    other = published(folder, data, seed=3)
    wait(lambda: score(url, data, [NEW["id"]]).generation == 2)
    answer = score(url, data, [NEW["id"], removed])
    assert (answer.missing, answer.sequence, answer.posts) == ([removed], 0, 2)
    assert abs(answer.logits["click"][0] - expected(other, data, 3, NEW["features"])) < 1e-4
    fresh = Live(folder, build.served)
    assert fresh.scorer.generation.posts == 2
    assert fresh.scorer.generation.item_ids.row(removed) == -1


def test_users_features_are_laid_over_what_is_stored(told) -> None:
    url, data, _, _ = told
    ids, known, new = data.item_ids.to_list()[:20], data.user_ids[3], 10**7
    with Client(url) as client:
        given = client.score(ids, user=known, features={"city": "lima"})
        nobody = client.score(ids, user=new, features={"city": "lima", "age": 30})
        assert nobody.unknown_user
        both = [{"id": known, "features": {"city": "lima"}}, {"id": new, "features": {"age": 30}}]
        httpx.post(f"{url}/users", json=both).raise_for_status()
        httpx.post(f"{url}/users", json={"id": new, "features": {"city": "lima"}}).raise_for_status()
        stored, created = client.score(ids, user=known), client.score(ids, user=new)
    assert stored.items == given.items
    np.testing.assert_allclose(stored.logits["click"], given.logits["click"], atol=1e-5)
    assert not created.unknown_user
    np.testing.assert_allclose(created.logits["click"], nobody.logits["click"], atol=1e-5)


@pytest.mark.parametrize(("path", "body", "status", "field", "detail"), [
    ("items", b"{", 400, None, "body is not valid json"),
    ("items", b'{"idd": 1}', 422, "body", "idd"),
    ("items", b"[]", 422, "body", "must hold 1 to 10,000 of them, got 0"),
    ("items", b'{"id": "a"}', 422, "id", "must be an integer"),
    ("items", b'{"id": 1, "features": {"prize": 1}}', 422, "features", "unknown feature 'prize'"),
    ("items", b'{"id": 1, "features": {"item": 1}}', 422, "features", "unknown feature 'item'"),
    ("items", b'[{"id": 1}, {"id": 2, "features": {"price": "dear"}}]', 422, "[1].features.price", "is not a number"),
    ("items", b'{"id": 1, "features": {"tags": 7}}', 422, "features.tags", "feature 'tags': must be text, got 7"),
    ("items", b'{"id": 1, "features": {"tags": ["a", null, 7]}}', 422, "features.tags", "feature 'tags': must be text, got 7"),
    ("users", b'{"id": 1, "features": {"city": true}}', 422, "features.city", "feature 'city': must be text, got True"),
    ("users", b'{"id": 1, "features": {"tab": 1}}', 422, "features", "unknown feature 'tab'"),
    ("users", b'{"id": 99999999999999999999}', 422, None, ""),
])  # fmt: skip
def test_what_is_wrong_is_told_and_changes_nothing(told, path, body, status, field, detail) -> None:
    url, _, _, folder = told
    answer = httpx.post(f"{url}/{path}", content=body)
    assert answer.status_code == status, answer.text
    assert detail in answer.json()["detail"]
    assert field is None or answer.json()["field"] == field
    assert not (folder / JOURNAL).exists()
    with Client(url) as client:
        assert client.health()["posts"] == 0
    assert httpx.delete(f"{url}/items/x").status_code == 422


def test_every_worker_takes_what_one_was_told(tmp_path: Path) -> None:
    data = world()
    published(tmp_path, data)
    with server(tmp_path, workers=2, follow_seconds=0.2, token="secret") as (url, _):
        with Client(url, "secret") as client:
            client.wait_until_ready(240)
        assert httpx.post(f"{url}/items", json=NEW).status_code == 401
        headers = {"authorization": "Bearer secret"}
        start = time.monotonic()
        httpx.post(f"{url}/items", json=NEW, headers=headers).raise_for_status()
        seen = 0
        while seen < 30:  # connections are fresh, so that both workers are asked
            with Client(url, "secret") as client:
                seen = seen + 1 if client.score([NEW["id"]]).missing == [] else 0
            assert time.monotonic() - start < 60
        with pytest.raises(ClientError), Client(url) as client:
            client.score([NEW["id"]])


def test_a_journal_that_a_kill_cut_short_goes_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append([Post("item", 1, {"price": 2.0})])
    with journal.path.open("ab") as file:
        file.write(b'{"side": "item", "id"')
    reader = Journal(tmp_path)
    assert [p.id for p in reader.read()] == [1]
    Journal(tmp_path).append([Post("item", "b", None)])
    assert [(p.id, p.features) for p in reader.read()] == [("b", None)]
    assert reader.read() == []
    assert [p.id for p in Journal(tmp_path).read()] == [1, "b"]


def test_one_generation_alone_takes_no_posts(tmp_path: Path) -> None:
    data = world()
    published(tmp_path, data)
    with threaded(tmp_path / "gen-000001") as url:
        answer = httpx.post(f"{url}/items", json=NEW)
    assert answer.status_code == 409
    assert "one generation is served" in answer.json()["detail"]


def test_an_item_whose_vector_is_not_finite_is_refused_and_keeps_nothing_back(tmp_path: Path) -> None:
    """Refused where it is posted; where a later tower makes NaN of one, the others are served."""
    data = world()
    published(tmp_path, data)
    live = Live(tmp_path, build.served)
    encode = live.scorer.plain.encode

    def broken(side, columns):
        said = encode(side, columns)
        if side == "item":
            said.groups[0][columns["price"] > 1e3] = np.nan
        return said

    live.scorer.plain.encode = broken
    with pytest.raises(MessageError, match="no finite vector"):
        live.post([Post("item", 10**6, {"price": 1e6})])
    assert not (tmp_path / JOURNAL).exists()
    Journal(tmp_path).append([Post("item", 10**6, {"price": 1e6}), Post("item", 10**6 + 1, {"price": 1.0})])
    assert live.refresh()
    assert live.scorer.generation.item_ids.rows([10**6, 10**6 + 1]).tolist() == [-1, 300]


def test_posts_of_a_ranker_are_columns(tmp_path: Path) -> None:
    data = world()
    made = published(tmp_path, data, "deepfm")
    live = Live(tmp_path, build.served)
    live.post([Post("item", NEW["id"], NEW["features"])])
    assert live.scorer.generation.columns["tags"][-1].tolist() == data.encoders["tags"].encode([["b", "c"]])[0].tolist()
    with torch.no_grad():
        assert made is not None


def wait(true) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
