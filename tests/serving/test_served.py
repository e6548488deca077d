"""What is logged of a user encodes to what was served."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prerank.config import Growth
from prerank.data.encoder import Bins, Categorical, Many, Standardise, Vector
from prerank.data.growing import GrowingVocabulary
from prerank.data.vocabulary import Vocabulary
from prerank.schema import FIRST
from prerank.serving import Request, open_current
from prerank.serving.served import NOBODY, Served, raw_of
from prerank.serving.users import Users
from prerank.stream import Impression, decode, encode

WORDS, NUMBERS = pl.Series(["rome", "oslo", "<unknown>"]), pl.Series([70, -(2**63), 9])
ENCODERS = {
    "text": Categorical("c", Vocabulary(WORDS)),
    "integers": Categorical("c", Vocabulary(NUMBERS)),
    "fractions": Categorical("c", Vocabulary(pl.Series([0.5, 1.5]))),
    "growing": Categorical("c", GrowingVocabulary(pl.Series([5, 6]), Growth(capacity=8))),
    "growing text": Categorical("c", GrowingVocabulary(pl.Series(["a", "b"]), Growth(capacity=8))),
    "bins": Bins("b", np.array([-3.5, 0.0, 20.0])),
    "one bin": Bins("b", np.array([])),
    "standardised": Standardise("s", 1e6, 0.37),
    "first of many": Many("m", Vocabulary(WORDS), 3, "first"),
    "last of many": Many("m", Vocabulary(NUMBERS), 3, "last"),
    "vector": Vector("v", 2),
}


@pytest.mark.parametrize("name", list(ENCODERS))
def test_what_a_column_says_encodes_to_the_column(name):
    encoder = ENCODERS[name]
    raw = raw_of(encoder)
    rng = np.random.default_rng(0)
    if isinstance(encoder, Standardise):
        column = np.concatenate([rng.normal(0, 3, 500).astype(np.float32), encoder.missing()])
    elif isinstance(encoder, Vector):
        column = np.concatenate([rng.normal(0, 3, (50, 2)).astype(np.float32), encoder.missing()])
    elif isinstance(encoder, Many):
        rows = [[v] if v else [] for v in encoder.vocabulary.values] + [list(encoder.vocabulary.values), ["new"], None]
        column = encoder.encode([r if r != ["new"] else [NOBODY[str(encoder.vocabulary.dtype)][1]] for r in rows])
    else:
        vocabulary = getattr(encoder, "vocabulary", None)
        held = FIRST + len(vocabulary.values) if vocabulary else encoder.size
        column = np.array([r for r in range(1, held) if vocabulary or r != 2], np.int32)
    told = [raw(row) for row in column]
    np.testing.assert_array_equal(encoder.encode(told), column)
    for value in told:
        encode(Impression(request=1, user=1, item=1, ts=1, features={"f": value}))


def test_a_row_that_was_given_up_is_unknown():
    encoder = ENCODERS["growing"]
    assert encoder.encode([raw_of(encoder)(np.int32(6))]).tolist() == [2]


@settings(max_examples=200, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e3), st.floats(-30, 30, width=32))
def test_numbers_come_back(mean, deviation, z):
    encoder = Standardise("s", mean, deviation)
    found = encoder.encode([raw_of(encoder)(np.float32(z))])[0]
    assert found == pytest.approx(np.float32(z), rel=1e-6, abs=1e-9 + 4e-16 * abs(mean) / deviation)


def test_features_are_those_of_the_store_the_request_and_nothing_else(served, data):
    generation = open_current(served[0])
    users, ours = Users(generation), Served(generation)
    for row in range(20):
        request = Request(user=data.user_ids[row], features={"city": "mars", "income": 12.5}, context={"tab": 3})
        user = users.of(request, "")
        told = ours.features(user, request)
        assert set(told) == {"city", "age", "income", "seen", "tab"}
        assert (told["city"], told["income"], told["tab"]) == ("mars", 12.5, 3)
        for name, value in told.items():
            np.testing.assert_array_equal(generation.encoders[name].encode([value]), user.columns[name])
    nobody = Request(user=10**12)
    assert ours.features(users.of(nobody, ""), nobody) == {"city": None, "age": None, "income": pytest.approx(10.0), "seen": None}


def test_what_no_event_can_carry_is_told_by_its_column(served, data):
    generation = open_current(served[0])
    users, ours = Users(generation), Served(generation)
    request = Request(user=data.user_ids[0], features={"age": 10**400, "seen": [data.item_ids[0], None]}, context={"tab": 2**70})
    request.context["tab"] = 1
    user = users.of(request, "")
    with pytest.raises(ValueError):
        encode(Impression(request=1, user=1, item=1, ts=1, features=ours.features(user, request)))
    told = ours.encodable(user, request)
    decode(encode(Impression(request=1, user=1, item=1, ts=1, features=told)))
    assert (told["age"], told["tab"]) == (None, 1)
