"""The scorer against what training computes."""

import numpy as np
import pytest

from prerank import build
from prerank.schema import UNKNOWN
from prerank.serving import GenerationError, MessageError, Request, Scorer, open_current
from tests.serving.world import OPTIONS, model, published, trained_logits, world


def columns(data, row, **raw):
    """A stored user's columns, with raw values in the place of some."""
    found = {name: np.array(column[row : row + 1]) for name, column in data.users.items()}
    found["tab"] = data.encoders["tab"].missing()
    return found | {name: data.encoders[name].encode([value]) for name, value in raw.items()}


def logits_of(response, objective="click"):
    return dict(zip(response.items, response.logits[objective], strict=True))


@pytest.fixture(scope="module")
def scorer(served):
    return Scorer(open_current(served[0]), build.served)


@pytest.mark.parametrize("name", list(OPTIONS))
@pytest.mark.parametrize("objectives", [("click",), ("click", "buy")])
def test_served_logits_are_trained_logits(tmp_path, name, objectives):
    data = world(objectives=objectives, items=90)
    made = published(tmp_path, data, name)
    scorer = Scorer(open_current(tmp_path), build.served)
    ids = data.item_ids.to_list()
    for row in range(5):
        response = scorer.score([Request(user=data.user_ids[row], candidates=ids, context={"tab": row % 4})])[0]
        expected = trained_logits(made, data, columns(data, row, tab=row % 4), np.arange(90))
        for t, objective in enumerate(objectives):
            found = logits_of(response, objective)
            for i, item in enumerate(ids):
                assert abs(found[item] - expected[i, t]) <= 1e-5 * max(1, abs(expected[i, t]))


@pytest.mark.parametrize(("dtype", "bound"), [("bf16", 0.02), ("int8", 0.05)])
def test_smaller_storage_is_near(tmp_path, data, dtype, bound):
    made = published(tmp_path, data, dtype=dtype)
    found = logits_of(
        Scorer(open_current(tmp_path), build.served).score([Request(user=data.user_ids[0], candidates=data.item_ids.to_list())])[0]
    )
    expected = trained_logits(made, data, columns(data, 0), np.arange(300))[:, 0]
    error = np.abs(np.array([found[i] for i in data.item_ids]) - expected)
    assert error.mean() < bound * expected.std()


def test_raw_features_override_and_stand_in_for_a_user(scorer, served, data):
    ids = data.item_ids.to_list()[:50]
    raw = {"city": "oslo", "age": 33.0, "income": 12.5, "seen": ids[:5]}
    for user, row in ((data.user_ids[4], 4), (None, 0)):
        found = logits_of(scorer.score([Request(user=user, features=raw, context={"tab": 1}, candidates=ids)])[0])
        asked = columns(data, row, **raw, tab=1)
        if user is None:
            asked["user"] = np.array([UNKNOWN], np.int32)
        expected = trained_logits(served[1], data, asked, np.arange(50))[:, 0]
        np.testing.assert_allclose([found[i] for i in ids], expected, rtol=1e-5, atol=1e-5)


def test_an_unknown_user_gets_the_cold_vector_and_says_so(scorer, served, data):
    response = scorer.score([Request(user=10**12, candidates=data.item_ids.to_list()[:20])])[0]
    cold = {name: data.encoders[name].missing() for name in ("city", "age", "income", "seen", "tab")} | {
        "user": np.array([UNKNOWN], np.int32)
    }
    expected = trained_logits(served[1], data, cold, np.arange(20))[:, 0]
    found = logits_of(response)
    np.testing.assert_allclose([found[i] for i in data.item_ids[:20]], expected, rtol=1e-5, atol=1e-5)
    assert response.unknown_user
    assert sorted(response.missing_features) == ["age", "city", "income", "seen", "tab"]


def test_a_known_user_lacks_only_the_context(scorer, data):
    response = scorer.score([Request(user=data.user_ids[0], candidates=[1])])[0]
    assert not response.unknown_user
    assert response.missing_features == ["tab"]


def test_unknown_items_are_listed_and_the_rest_ordered(scorer, data):
    ids = data.item_ids.to_list()
    response = scorer.score([Request(user=data.user_ids[0], candidates=[10**9, *ids[:5], -(10**9)])])[0]
    assert response.missing == [10**9, -(10**9)]
    assert sorted(response.items) == sorted(ids[:5])
    assert response.scores == sorted(response.scores, reverse=True)
    nothing = scorer.score([Request(user=data.user_ids[0], candidates=[10**9])])[0]
    assert (nothing.items, nothing.scores, nothing.missing) == ([], [], [10**9])


def test_k_keeps_the_best_and_the_best_are_the_best_of_all(scorer, data):
    ids = data.item_ids.to_list()
    everything = scorer.score([Request(user=data.user_ids[1], candidates=ids)])[0]
    for k in (1, 7, 299, 300, 5000):
        assert scorer.score([Request(user=data.user_ids[1], candidates=ids, k=k)])[0].items == everything.items[:k]


def test_probabilities_are_calibrated(scorer, data):
    response = scorer.score([Request(user=data.user_ids[1], candidates=data.item_ids.to_list())])[0]
    calibrator = scorer.generation.calibrators["click"]
    np.testing.assert_allclose(response.probabilities["click"], calibrator(np.array(response.logits["click"])), rtol=1e-6)
    assert response.scores == response.probabilities["click"]


def test_bids_order_by_probability_times_bid(scorer, data):
    ids = data.item_ids.to_list()
    bids = np.random.default_rng(0).lognormal(0, 3, len(ids)).tolist()
    plain = scorer.score([Request(user=data.user_ids[2], candidates=ids)])[0]
    p = dict(zip(plain.items, plain.scores, strict=True))
    value = {i: p[i] * b for i, b in zip(ids, bids, strict=True)}
    priced = scorer.score([Request(user=data.user_ids[2], candidates=ids, bids=bids)])[0]
    assert priced.items == sorted(ids, key=lambda i: -value[i])
    assert priced.items != plain.items
    np.testing.assert_allclose(priced.scores, [value[i] for i in priced.items], rtol=1e-5)


def test_bids_without_a_calibrator_are_refused(tmp_path, data):
    published(tmp_path, data, "mf", calibrated=False)
    scorer = Scorer(open_current(tmp_path), build.served)
    assert scorer.score([Request(candidates=[1])])
    with pytest.raises(MessageError, match="bids: ordering by eCPM needs a calibrator for 'click'"):
        scorer.score([Request(candidates=[1], bids=[1.0])])


def test_a_batch_of_users_is_the_users_one_by_one(scorer, data):
    ids = data.item_ids.to_list()
    requests = [
        Request(user=data.user_ids[0], candidates=ids[:30], k=4),
        Request(user=None, candidates=ids[10:90], features={"city": "rome"}),
        Request(user=data.user_ids[7], candidates=[*ids[:3], 10**9], context={"tab": 3}),
    ]
    for together, request in zip(scorer.score(requests), requests, strict=True):
        alone = scorer.score([request])[0]
        assert together.items == alone.items
        assert together.missing == alone.missing
        assert together.missing_features == alone.missing_features
        np.testing.assert_allclose(together.logits["click"], alone.logits["click"], rtol=1e-5, atol=1e-5)


def test_objectives_order_on_their_own(tmp_path):
    data = world(objectives=("click", "buy"), items=90)
    published(tmp_path, data)
    scorer = Scorer(open_current(tmp_path), build.served)
    ids = data.item_ids.to_list()
    by = {o: scorer.score([Request(user=data.user_ids[0], candidates=ids, objective=o)])[0] for o in ("click", "buy")}
    for objective, response in by.items():
        assert response.logits[objective] == sorted(response.logits[objective], reverse=True)
    assert by["click"].items != by["buy"].items
    with pytest.raises(MessageError, match="objective: unknown objective 'bye'; did you mean 'buy'"):
        scorer.score([Request(candidates=ids, objective="bye")])


def test_text_ids(tmp_path):
    data = world(text=True, items=60)
    made = published(tmp_path, data)
    scorer = Scorer(open_current(tmp_path), build.served)
    ids = data.item_ids.to_list()
    response = scorer.score([Request(user=data.user_ids[3], candidates=[*ids, "nobody"])])[0]
    assert response.missing == ["nobody"]
    expected = trained_logits(made, data, columns(data, 3), np.arange(60))[:, 0]
    found = logits_of(response)
    np.testing.assert_allclose([found[i] for i in ids], expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(MessageError, match="candidates: id 5 at position 0: must be a string"):
        scorer.score([Request(candidates=[5])])


@pytest.mark.parametrize(
    ("request_", "field", "message"),
    [
        (Request(candidates=["a"]), "candidates", "id 'a' at position 0: must be an integer"),
        (Request(candidates=[1], user="bob"), "user", "must be an integer"),
        (Request(candidates=[2**63]), "candidates", "must fit in 64 bits"),
        (Request(candidates=[1], features={"cty": "oslo"}), "features", "unknown feature 'cty'; did you mean 'city'?"),
        (Request(candidates=[1], features={"tab": 1}), "features", "unknown feature 'tab'"),
        (Request(candidates=[1], context={"city": 1}), "context", "unknown feature 'city'"),
        (Request(candidates=[1], features={"price": 1}), "features", "unknown feature 'price'"),
        (Request(candidates=[1], features={"age": "old"}), "features.age", "is not a number"),
        (Request(candidates=[1], context={"tab": {"a": 1}}), "context.tab", "feature 'tab'"),
        (Request(candidates=[1], features={"seen": ["x"]}), "features.seen", "is not an integer"),
    ],
)
def test_requests_that_make_no_sense_name_the_field(scorer, request_, field, message):
    with pytest.raises(MessageError, match=message.replace("?", r"\?")) as caught:
        scorer.score([request_])
    assert caught.value.field == field


def test_values_nobody_has_seen_are_unknown_and_none_is_missing(scorer, data):
    for raw in ({"city": "atlantis"}, {"city": None}, {"age": None}, {"age": 1e30}, {"seen": []}, {"seen": [10**12]}):
        assert scorer.score([Request(features=raw, candidates=data.item_ids.to_list()[:3])])[0].items


def test_a_builder_of_another_model_is_refused(served):
    data = world()
    with pytest.raises(GenerationError, match="weights do not fit the model"):
        Scorer(open_current(served[0]), lambda meta: model(data, "dssm"))


def test_the_remembered_encodings_are_bounded(scorer, monkeypatch, data):
    monkeypatch.setattr("prerank.serving.users.REMEMBERED", 10)
    for i in range(50):
        scorer.score([Request(features={"income": float(i)}, candidates=data.item_ids.to_list()[:1])])
    assert len(scorer._users._encoded["income"]) <= 10
