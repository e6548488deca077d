"""Events over the wire."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prerank.stream import (
    Feedback,
    Impression,
    Rejected,
    Removal,
    Shadow,
    Tick,
    Upsert,
    claims,
    decode,
    encode,
    event,
    key_of,
    log,
    producer,
)

ids = st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(codec="utf-8"), min_size=1, max_size=256)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(codec="utf-8"))
values = st.none() | st.booleans() | numbers | words | st.lists(numbers | words)
features = st.dictionaries(words, values, max_size=4)
times = st.integers(0, 2**53)
finite = st.floats(allow_nan=False, allow_infinity=False)
events = st.one_of(
    st.builds(Impression, request=ids, user=st.none() | ids, item=ids, ts=times, position=st.none() | st.integers(0, 100),
              features=features, score=st.none() | finite, generation=st.none() | st.integers(0, 9), memory=st.none() | ids,
              arm=st.none() | st.just("b"), experiment=st.none() | st.just("e"), bid=st.none() | finite,
              sequence=st.none() | st.integers(0, 9), latency=st.none() | finite),
    st.builds(Shadow, request=ids, user=st.none() | ids, ts=times, arm=words, items=st.lists(ids), scores=st.lists(finite)),
    st.builds(Feedback, request=ids, item=ids, ts=times, kind=words, value=finite),
    st.builds(Upsert, side=st.sampled_from(["user", "item"]), id=ids, ts=times, features=features),
    st.builds(Removal, side=st.sampled_from(["user", "item"]), id=ids, ts=times),
    st.builds(Tick, ts=times),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(events)
def test_what_is_encoded_is_decoded_as_it_was(event):
    assert decode(encode(event)) == event


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60) | events.map(encode).flatmap(lambda m: st.integers(0, len(m)).map(lambda n: m[:n] + m[n + 1 :])))
def test_decoding_never_raises(data):
    assert decode(data) is not None


@pytest.mark.parametrize(("event", "told"), [
    (Impression(request="r", user=1, item=1, ts=1, score=float("nan")), "score: must be finite; got nan"),
    (Impression(request="r", user=1, item=1, ts=1, features={"x": float("inf")}), "feature 'x': must be finite; got inf"),
    (Impression(request="r", user=1, item=1, ts=1, features={"x": [1.0, float("nan")]}), "feature 'x': must be finite; got nan"),
    (Impression(request="r", user=1, item=1, ts=1, latency=float("nan")), "latency: must be finite; got nan"),
    (Shadow(request="r", user=1, ts=1, arm="a", items=[1], scores=[float("nan")]), "scores: must be finite; got nan"),
    (Feedback(request="r", item=1, ts=1, kind="click", value=float("-inf")), "value: must be finite; got -inf"),
    (Impression(request="r", user=1, item="x" * 2000, ts=1), "length <= 1024"),
    (Impression(request="r", user=1, item="é" * 1000, ts=1), "item: must be at most 1024 bytes; got 2000"),
    (Impression(request="r", user=1, item=2**80, ts=1), "event: "),
    (Impression(request="r", user=1, item=1, ts=1.5), "Expected `int`, got `float`"),
    (Impression(request="r", user=1, item=1, ts=1, features={"x": object()}), "type object is unsupported"),
    (Impression(request="r", user=1, item=1, ts=1, features={"x": "y" * 600_000}), "a message must be at most 524288 bytes"),
    (Tick(ts=-1), ">= 0"),
])  # fmt: skip
def test_what_nobody_could_use_is_not_encoded(event, told):
    with pytest.raises(ValueError, match=told.replace("(", r"\(")):
        encode(event)


def test_a_rejection_does_not_repeat_a_million_letters():
    found = decode(b'{"type":"' + b"x" * 100_000 + b'"}')
    assert isinstance(found, Rejected)
    assert len(found.detail) <= 300


def test_an_impression_and_its_feedback_share_a_key():
    shown = Impression(request=7, user=1, item=2, ts=1)
    assert key_of(shown) == key_of(Feedback(request=7, item=3, ts=1, kind="click")) == b"7"
    assert key_of(Shadow(request=7, user=1, ts=1, arm="a", items=[], scores=[])) == b"7"
    assert key_of(Removal(side="item", id="a", ts=1)) == b"a"


def test_an_impression_names_a_user_or_says_that_there_is_none():
    assert isinstance(decode(b'{"type":"impression","request":1,"item":1,"ts":1}'), Rejected)
    assert decode(b'{"type":"impression","request":1,"user":null,"item":1,"ts":1}').user is None


def test_examples():
    for module in (claims, event, log, producer):
        assert doctest.testmod(module).failed == 0
