"""Generations whose candidates are scored by the model's own head or by a ranker, and stored user vectors."""

import json

import numpy as np
import pytest
from litestar.testing import TestClient

from prerank import build
from prerank.serving import Generation, GenerationError, Request, Scorer, Settings, create, export, open_current
from prerank.serving.cost import CANDIDATES, REPEATS, us_per_candidate
from tests.serving.test_scorer import columns, logits_of
from tests.serving.world import OPTIONS, model, published, trained_logits, world

BEYOND = {"ranktower": "head", "lr": "ranker", "deepfm": "ranker"}


@pytest.mark.parametrize("name", list(BEYOND))
def test_many_candidates_unknown_ones_among_them(tmp_path, name):
    """More than a chunk, repeated and in disorder: each as training has it."""
    data = world(items=1200, objectives=("click", "buy"))
    made = published(tmp_path, data, name)
    scorer = Scorer(open_current(tmp_path), build.served)
    assert scorer.generation.meta.scoring == BEYOND[name]
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 1200, 1500)
    ids = data.item_ids.to_numpy()[rows]
    unknown = rng.random(1500) < 0.1
    asked = np.where(unknown, ids + 10**9, ids)
    found = scorer.score([Request(user=data.user_ids[3], candidates=asked.tobytes(), context={"tab": 2})])[0]
    assert np.array_equal(np.frombuffer(found.missing, "<i8"), asked[unknown])
    expected = dict(zip(ids, trained_logits(made, data, columns(data, 3, tab=2), rows), strict=True))
    items = np.frombuffer(found.items, "<i8")
    for t, objective in enumerate(("click", "buy")):
        values = np.frombuffer(found.logits[objective], "<f4")
        np.testing.assert_allclose(values, [expected[i][t] for i in items], rtol=1e-5, atol=1e-5)
    nothing = scorer.score([Request(candidates=[10**9])])[0]
    assert (nothing.items, nothing.missing) == ([], [10**9])


@pytest.mark.parametrize(("dtype", "bound"), [("bf16", 0.02), ("int8", 0.05)])
def test_smaller_storage_under_a_head_of_its_own(tmp_path, data, dtype, bound):
    made = published(tmp_path, data, "ranktower", dtype=dtype)
    ids = data.item_ids.to_list()
    found = logits_of(Scorer(open_current(tmp_path), build.served).score([Request(user=data.user_ids[0], candidates=ids)])[0])
    expected = trained_logits(made, data, columns(data, 0), np.arange(300))[:, 0]
    error = np.abs(np.array([found[i] for i in ids]) - expected)
    assert 0 < error.mean() < bound * expected.std()


@pytest.mark.parametrize("name", list(BEYOND))
def test_a_batch_of_users_is_the_users_one_by_one(tmp_path, data, name):
    published(tmp_path, data, name)
    scorer = Scorer(open_current(tmp_path), build.served)
    ids = data.item_ids.to_list()
    requests = [Request(user=data.user_ids[0], candidates=ids[:30]), Request(candidates=ids[10:90], features={"city": "rome"}),
                Request(user=data.user_ids[7], candidates=[*ids[:3], 10**9], context={"tab": 3})]  # fmt: skip
    for together, request in zip(scorer.score(requests), requests, strict=True):
        alone = scorer.score([request])[0]
        assert (together.items, together.missing, together.missing_features) == (alone.items, alone.missing, alone.missing_features)
        np.testing.assert_allclose(together.logits["click"], alone.logits["click"], rtol=1e-5, atol=1e-5)


def test_what_is_not_maxsim_has_a_cost(tmp_path, data):
    for name in ("deepfm", "ranktower", "mf"):
        published(tmp_path, data, name)
        cost = Scorer(open_current(tmp_path), build.served).cost
        assert cost is None if name == "mf" else 0 < cost < 1e5


def test_the_cost_is_that_of_many_calls_a_candidate():
    asked = []
    assert 0 <= us_per_candidate(lambda rows: asked.append(rows), 7) < 100
    assert len(asked) == 1 + REPEATS
    assert all(len(rows) == CANDIDATES and 0 <= rows.min() <= rows.max() < 7 for rows in asked)


@pytest.mark.parametrize("name", ["inttower", "dssm", "mf", "ranktower"])
def test_stored_user_vectors_say_what_the_tower_says(tmp_path, name):
    data = world(objectives=("click", "buy"))
    published(tmp_path / "plain", data, name)
    published(tmp_path / "users", data, name, users=True, batch_size=32)
    plain, stored = (Scorer(open_current(tmp_path / kind), build.served) for kind in ("plain", "users"))
    assert stored.generation.user_vectors.shape == (60, stored.generation.items.user_width)
    ids = data.item_ids.to_list()
    asked = [Request(user=u, candidates=ids[:40]) for u in data.user_ids[:9]]
    asked += [Request(user=data.user_ids[0], candidates=ids, context={"tab": 1}), Request(candidates=ids)]
    asked += [Request(user=data.user_ids[5], candidates=ids[5:], features={"city": "oslo"}), Request(user=10**12, candidates=ids)]
    mixed = stored.score(asked)
    for one, request in zip(mixed, asked, strict=True):
        for other in (plain.score([request])[0], stored.score([request])[0]):
            assert (one.unknown_user, one.missing_features) == (other.unknown_user, other.missing_features)
            for objective in ("click", "buy"):
                found, expected = (dict(zip(r.items, r.logits[objective], strict=True)) for r in (one, other))
                np.testing.assert_allclose([found[i] for i in request.candidates], [expected[i] for i in request.candidates], 1e-5, 1e-5)


def test_the_tower_rests_where_a_vector_is_stored(tmp_path, data, monkeypatch):
    published(tmp_path, data, "ranktower", users=True)
    scorer = Scorer(open_current(tmp_path), build.served)

    def must_not(*_):
        raise AssertionError("the user tower ran")

    monkeypatch.setattr("prerank.serving.users.encode", must_not)
    monkeypatch.setattr(scorer._users, "_tape", must_not)
    users = data.user_ids.to_list()
    assert scorer.score([Request(user=users[1], candidates=[1])])
    assert scorer.score([Request(user=u, candidates=[1]) for u in users])
    for request in (Request(candidates=[1]), Request(user=users[0], candidates=[1], context={"tab": 1})):
        with pytest.raises(AssertionError, match="the user tower ran"):
            scorer.score([request])


def test_a_ranker_stores_columns_and_no_vectors(tmp_path, data):
    published(tmp_path, data, "lr")
    folder = tmp_path / "gen-000001"
    assert sorted(p.name for p in (folder / "items").iterdir()) == ["item.npy", "price.npy", "tags.npy"]
    assert not list(folder.glob("items.npy")) + list(folder.glob("user_vectors.npy"))
    for options in ({"dtype": "int8"}, {"users": True}):
        with pytest.raises(GenerationError, match="a ranker has no vectors"):
            published(tmp_path, data, "lr", **options)


def test_a_feature_that_only_the_log_has_is_missing_for_every_item(tmp_path):
    data = world()
    del data.items["price"]
    published(tmp_path, data, "lr")
    column = open_current(tmp_path).columns["price"]
    assert column.tolist() == [0.0] * 300


@pytest.mark.parametrize(("name", "spoil", "message"), [
    ("deepfm", lambda m: m.embeddings.tables, "weights must be finite, those of 'embeddings.tables"),
    ("mf", lambda m: m.user, "user vectors must be finite, that of user"),
])  # fmt: skip
def test_what_is_not_finite_is_not_published(tmp_path, data, name, spoil, message):
    broken = model(data, name)
    next(spoil(broken).parameters()).data[7] = float("nan")
    with pytest.raises(GenerationError, match=message):
        export(data, broken, folder=tmp_path, options=OPTIONS[name], users=name == "mf")


def edited(folder, **changes):
    meta = folder / "gen-000001" / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), **changes}))
    return folder / "gen-000001"


def test_a_newer_format_is_refused_before_it_is_read(data, tmp_path):
    published(tmp_path, data, "mf")
    with pytest.raises(GenerationError, match=r"its format must be at most 2, it is 3: written by a newer version; upgrade"):
        Generation(edited(tmp_path, format=3, items="of another kind"))
    with pytest.raises(GenerationError, match="scoring must be one of maxsim, head, ranker; got 'oracle'"):
        Generation(edited(tmp_path, format=2, items=300, scoring="oracle"))


def test_a_generation_of_the_first_format_is_served(data, tmp_path):
    made = published(tmp_path, data, "mf")
    meta = tmp_path / "gen-000001" / "meta.json"
    old = {k: v for k, v in json.loads(meta.read_text()).items() if k not in ("format", "scoring", "user_vectors")}
    meta.write_text(json.dumps(old))
    response = Scorer(open_current(tmp_path), build.served).score([Request(user=data.user_ids[0], candidates=data.item_ids.to_list())])[0]
    expected = trained_logits(made, data, columns(data, 0), np.arange(300))[:, 0]
    found = logits_of(response)
    np.testing.assert_allclose([found[i] for i in data.item_ids], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("change", "message"), [
    (lambda g: np.save(g / "user_vectors.npy", np.zeros((60, 3), np.float32)), "file 'user_vectors.npy' must have"),
    (lambda g: (g / "user_bias.npy").unlink(), "file 'user_bias.npy' is missing"),
])  # fmt: skip
def test_spoilt_user_vectors_are_one_line(data, tmp_path, change, message):
    published(tmp_path, data, "mf", users=True)
    change(tmp_path / "gen-000001")
    with pytest.raises(GenerationError, match=message):
        open_current(tmp_path)


def test_user_vectors_of_another_width_are_refused(data, tmp_path):
    published(tmp_path, data, "mf", users=True)
    folder = edited(tmp_path, files={}, checksums={})
    np.save(folder / "user_vectors.npy", np.zeros((60, 3), np.float32))
    with pytest.raises(GenerationError, match=r"user vectors must be float32 \[60, 12\], they are float32 \[60, 3\]"):
        Generation(folder)


@pytest.mark.parametrize(("cost", "handed_over"), [(None, 0), (0.1, 0), (30.0, 0), (100.0, 1)])
def test_dear_candidates_leave_the_event_loop_sooner(tmp_path, data, monkeypatch, cost, handed_over):
    """50 candidates: as dear as 20,000 by MaxSim (0.2 us each) from 80 us each on."""
    published(tmp_path, data, "deepfm")
    app = create(Settings(tmp_path, follow_seconds=0), build.served)
    monkeypatch.setattr(app.state.service.live.scorer, "cost", cost)
    threads = []

    async def to_thread(function, *arguments):
        threads.append(function)
        return function(*arguments)

    with TestClient(app) as client:
        monkeypatch.setattr("prerank.serving.app.asyncio.to_thread", to_thread)
        answer = client.post("/score", json={"candidates": data.item_ids.to_list()[:50]})
    assert (answer.status_code, len(answer.json()["items"])) == (200, 50)
    assert len(threads) == handed_over
