"""Arms behind a real server: each user sees one model, answers and logs say which, shadows are heard by the log alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import pytest

from prerank import build
from prerank.serving import Client, ClientError, Experiment, GenerationError, Request, Settings, create
from prerank.serving.live import scorer_at
from prerank.stream import Impression, Shadow
from tests.serving.test_http import counted
from tests.serving.test_recorder import events, wait
from tests.serving.world import World, published, server, threaded, world


@pytest.fixture(scope="module")
def folders(data: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {name: tmp_path_factory.mktemp(name) for name in ("old", "new", "next")}
    published(found["old"], data, "mf")
    for seed in (3, 4):
        published(found["new"], data, "inttower", seed=seed)  # its second
    published(found["next"], data, "dssm")
    return found


def experiment(folders: dict[str, Path], **changes: object) -> Experiment:
    return Experiment.model_validate({
        "name": "first", "salt": "s",
        "arms": [{"name": "old", "folder": folders["old"], "share": 0.5}, {"name": "new", "folder": folders["new"], "share": 0.5}],
        **changes,
    })  # fmt: skip


def shadowed(folders: dict[str, Path]) -> list[dict[str, object]]:
    return [{"name": "next", "folder": folders["next"]}]


def test_each_user_is_answered_by_one_model_and_all_that_is_said_and_logged_tells_which(data, folders, tmp_path):
    url, ids = f"sqlite:///{tmp_path}/events.db", data.item_ids.to_list()[:30]
    two = experiment(folders, shadow=shadowed(folders))
    alone = {name: scorer_at(folders[name], build.served, number) for name, number in (("old", 1), ("new", 2), ("next", 1))}
    with threaded(None, log=url, experiment=two) as address, Client(address) as client:
        said = {user: client.score(ids, user=user, k=5, context={"tab": 1}) for user in data.user_ids.to_list()}
        again = {user: client.score(ids[:9], user=user, k=2) for user in data.user_ids.to_list()}
        nobody = [client.score(ids, k=1) for _ in range(20)]
        health = client.health()
        wait(lambda: counted(address, "prerank_logged_events_total") == 60 * (5 + 2) + 20 + 140)
        assert counted(address, "prerank_arm_requests_total") == 140
        assert counted(address, "prerank_arm_seconds_count") == 140 * 2
        page = httpx.get(f"{address}/metrics").text
        assert 'prerank_arm_generation{arm="new"} 2.0' in page
        assert 'prerank_arm_generation{arm="next"} 1.0' in page
        assert httpx.get(f"{address}/schema").json()["generation"] == 1
    assert Counter(s.arm for s in said.values()).keys() == {"old", "new"}
    for user, one in said.items():
        assert (one.experiment, one.arm) == ("first", two.arm_of(user))
        assert again[user].arm == one.arm
        (expected,) = alone[one.arm].score([Request(user=user, candidates=ids, k=5, context={"tab": 1})])
        assert one.items == expected.items
        np.testing.assert_allclose(one.logits["click"], expected.logits["click"], rtol=1e-5)
        assert one.generation == {"old": 1, "new": 2}[one.arm]
    assert [one.arm for one in nobody] == [two.arm_of(one.request) for one in nobody]
    assert {one.arm for one in nobody} == {"old", "new"}

    found = events(url)
    by_request = {one.request: one for one in (*said.values(), *again.values(), *nobody)}
    shown = [e for e in found if isinstance(e, Impression)]
    assert all((e.experiment, e.arm) == ("first", by_request[e.request].arm) for e in shown)
    assert all(e.generation == by_request[e.request].generation for e in shown)
    shadows = [e for e in found if isinstance(e, Shadow)]
    assert sorted(e.request for e in shadows) == sorted(by_request)
    for e in shadows[:40]:
        first = {one.request: user for user, one in said.items()}
        if e.request in first:
            (expected,) = alone["next"].score([Request(user=first[e.request], candidates=ids, k=5, context={"tab": 1})])
            assert (e.items, e.arm, e.experiment, e.generation, e.user) == (expected.items, "next", "first", 1, first[e.request])
            np.testing.assert_allclose(e.scores, expected.scores, rtol=1e-5)
    assert (health["status"], health["experiment"]) == ("ok", "first")
    assert {name: (a["generation"], a["share"]) for name, a in health["arms"].items()} == {"old": (1, 0.5), "new": (2, 0.5)}
    assert health["shadow"]["next"]["generation"] == 1


def test_a_batch_is_answered_by_several_arms_each_saying_its_state(data, folders):
    two, ids = experiment(folders), data.item_ids.to_list()[:9]
    users = data.user_ids.to_list()[:20]
    with threaded(None, experiment=two) as address, Client(address, format="msgpack") as client:
        said = client.score_many([Request(user=u, candidates=ids, request=f"r{u}") for u in users])
        assert (said.generation, [r.request for r in said.responses]) == (0, [f"r{u}" for u in users])
        assert [r.arm for r in said.responses] == [two.arm_of(u) for u in users]
        assert [r.generation for r in said.responses] == [{"old": 1, "new": 2}[r.arm] for r in said.responses]
        alone = [client.score(ids, user=u) for u in users]
        for one, other in zip(said.responses, alone, strict=True):
            np.testing.assert_allclose(one.logits["click"], other.logits["click"], rtol=1e-4, atol=1e-5)
        wrong = [{"user": u, "candidates": ids} for u in users]
        wrong[7]["features"] = {"age": "old"}
        assert httpx.post(f"{address}/score", json={"requests": wrong}).json()["field"] == "requests[7].features.age"


def test_an_arm_is_forced_only_where_the_file_allows_it(data, folders):
    ids = data.item_ids.to_list()[:9]
    with threaded(None, experiment=experiment(folders, allow_forced=True)) as address, Client(address) as client:
        for arm in ("old", "new"):
            assert client.score(ids, user=data.user_ids[0], arm=arm).arm == arm
        with pytest.raises(ClientError, match="no arm 'nwe'; did you mean 'new'") as caught:
            client.score(ids, arm="nwe")
        assert (caught.value.status, caught.value.field) == (422, "arm")
    with threaded(None, experiment=experiment(folders)) as address, Client(address) as client, pytest.raises(ClientError) as caught:
        client.score(ids, arm="old")
    assert (caught.value.status, caught.value.field) == (422, "arm")
    with threaded(folders["old"]) as address, Client(address) as client, pytest.raises(ClientError, match="there is no experiment"):
        client.score(ids, arm="old")


def test_each_arm_follows_its_own_folder_and_all_take_what_is_posted(tmp_path):
    data = world(items=30, users=20)
    paths = {name: tmp_path / name for name in ("old", "new")}
    for name, path in paths.items():
        published(path, data, "mf" if name == "old" else "inttower")
    with threaded(None, experiment=experiment(paths), follow_seconds=0.05) as address, Client(address) as client:
        published(paths["new"], data, "inttower", seed=5)
        wait(lambda: client.health()["arms"]["new"]["generation"] == 2)
        assert client.health()["arms"]["old"]["generation"] == 1
        posted = httpx.post(f"{address}/items", json={"id": 10**6, "features": {"price": 2.0}})
        assert posted.status_code == 200, posted.text
        users = data.user_ids.to_list()
        assert {client.score([10**6], user=u).arm for u in users if client.score([10**6], user=u).items == [10**6]} == {"old", "new"}
        assert httpx.delete(f"{address}/items/{10**6}").status_code == 200
        assert all(client.score([10**6], user=u).missing == [10**6] for u in users)


def test_an_arm_of_other_features_takes_those_it_knows(tmp_path):
    wide = world(items=30, users=20)
    narrow = world(items=30, users=20)
    kept = tuple(f for f in narrow.schema.features if f.name != "income")
    narrow.schema = narrow.schema.model_copy(update={"features": kept})
    for part in (narrow.encoders, narrow.users):
        part.pop("income")
    paths = {name: tmp_path / name for name in ("old", "new")}
    published(paths["old"], narrow, "dssm")
    published(paths["new"], wide, "dssm")
    ids = wide.item_ids.to_list()[:9]
    url = f"sqlite:///{tmp_path}/events.db"
    with threaded(None, experiment=experiment(paths), log=url) as address, Client(address) as client:
        arms = {client.score(ids, user=u, k=1, features={"income": 11.0}).arm for u in wide.user_ids.to_list()}
        assert arms == {"old", "new"}
        with pytest.raises(ClientError, match="unknown feature 'incom'"):
            client.score(ids, features={"incom": 11.0})
        wait(lambda: counted(address, "prerank_logged_events_total") == 20)
    assert {(e.arm, e.features["income"]) for e in events(url)} == {("old", 11.0), ("new", 11.0)}


def test_shadows_that_have_no_time_drop_and_are_counted(data, folders, monkeypatch):
    monkeypatch.setattr("prerank.serving.shadows.WAITING", 0)
    with threaded(None, experiment=experiment(folders, shadow=shadowed(folders))) as address, Client(address) as client:
        for _ in range(5):
            assert client.score(data.item_ids.to_list()[:5]).items
        wait(lambda: counted(address, "prerank_shadow_dropped_total") == 5)


def test_an_aa_test_shares_the_state_of_its_folder(data, folders):
    same = {"old": folders["old"], "new": folders["old"]}
    app = create(Settings(None, experiment=experiment(same)), build.served)
    arms = app.state.service.arms
    assert len(arms.lives) == 1
    assert [m.name for m in arms.members] == ["old", "new"]


def test_an_arm_with_nothing_to_serve_is_one_line(folders, tmp_path):
    empty = {**folders, "new": tmp_path}
    with pytest.raises(GenerationError, match=r"holds no current.json"):
        create(Settings(None, experiment=experiment(empty)), build.served)


@pytest.mark.slow
def test_workers_deal_alike(data, folders):
    two = experiment(folders)
    with server(None, experiment=two.model_dump(mode="json"), workers=2) as (address, _):
        with Client(address) as client:
            client.wait_until_ready(240)
        for _ in range(3):
            for user in data.user_ids.to_list()[:10]:
                with Client(address) as client:
                    assert client.score(data.item_ids.to_list()[:5], user=user).arm == two.arm_of(user)
