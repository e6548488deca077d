"""Who gets which arm: the same everywhere and for ever, evenly, and independently of other experiments."""

from __future__ import annotations

import doctest
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score

from prerank.config import ConfigError
from prerank.serving import experiment
from prerank.serving.experiment import Experiment, dealt, read

ARMS = [{"name": "old", "folder": "old", "share": 0.2}, {"name": "new", "folder": "new", "share": 0.5},
        {"name": "newer", "folder": "newer", "share": 0.3}]  # fmt: skip


def made(**changes):
    return Experiment.model_validate({"name": "first", "salt": "s", "arms": ARMS, **changes})


@given(st.text(), st.text(), st.integers() | st.text(st.characters(codec="utf-8")))
def test_the_place_is_what_the_page_says(name, salt, unit):
    try:
        digest = blake2b(b"\0".join(str(part).encode() for part in (name, salt, unit)), digest_size=8).digest()
    except UnicodeEncodeError:  # a lone surrogate: JSON lets none in
        return
    number = sum(byte << (8 * (7 - i)) for i, byte in enumerate(digest))
    assert dealt(name, salt, unit) == (number // 2048) / 2**53
    assert 0 <= dealt(name, salt, unit) < 1


def test_it_is_the_same_in_every_release():
    """Written down once: whoever changes a number deals running experiments anew."""
    assert [dealt("first", "", 42), dealt("first", "salt", 42), dealt("é", "s", "ü")] == [
        0.27930993887516165, 0.9622929997627587, 0.49269826334074607,
    ]  # fmt: skip
    assert [made().arm_of(u) for u in range(12)] == [
        "new", "newer", "new", "newer", "new", "new", "new", "old", "newer", "new", "newer", "new",
    ]  # fmt: skip


def test_users_lie_evenly():
    places = np.array([dealt("first", "s", user) for user in range(200_000)])
    counts = np.histogram(places, 100, (0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 149  # chi-squared, 99 degrees of freedom, p = .001
    shares = [np.mean([made().arm_of(u) == a["name"] for u in range(20_000)]) for a in ARMS]
    np.testing.assert_allclose(shares, [0.2, 0.5, 0.3], atol=0.012)


@pytest.mark.parametrize("other", [{"name": "second"}, {"salt": "t"}])
def test_another_experiment_deals_independently(other):
    ours, theirs = made(), made(**other)
    both = [(ours.arm_of(f"u{n}"), theirs.arm_of(f"u{n}")) for n in range(20_000)]
    information = mutual_info_score(*zip(*both, strict=True))
    assert 2 * len(both) * information < 18.5  # a likelihood ratio, 4 degrees of freedom, p = .001
    places = np.array([[dealt(e.name, e.salt, n) for e in (ours, theirs)] for n in range(20_000)])
    assert abs(np.corrcoef(places.T)[0, 1]) < 0.025


@given(st.integers() | st.text(st.characters(codec="utf-8")))
def test_a_user_has_one_arm(unit):
    assert made().arm_of(unit) == made().arm_of(str(unit))


def test_other_shares_move_users_at_the_borders_alone():
    more = made(arms=[{**ARMS[0], "share": 0.3}, {**ARMS[1], "share": 0.4}, ARMS[2]])
    before, after = ([e.arm_of(u) for u in range(5000)] for e in (made(), more))
    moved = {(b, a) for b, a in zip(before, after, strict=True) if b != a}
    assert moved == {("new", "old")}


@pytest.mark.parametrize(("text", "told"), [
    ("name: e\narms: []", "arms"),
    ("arms: [{name: a, folder: a, share: 1}]", "name"),
    ("name: e\narms: [{name: a, folder: a, share: 0.5}, {name: b, folder: b, share: 0.4}]", "shares must sum to 1; they sum to 0.9"),
    ("name: e\narms: [{name: a, folder: a, share: 1}]\nshadow: [{name: a, folder: b}]", "names must differ; 'a' comes 2 times"),
    ("name: e\narms: [{name: a, folder: a, share: 0}]", "greater than 0"),
    ("name: e\narms: [{name: a, folder: a, shares: 1}]", "shares"),
    ("name: e\nforce: true\narms: [{name: a, folder: a, share: 1}]", "force"),
])  # fmt: skip
def test_a_wrong_file_says_what_is_wrong(tmp_path, text, told):
    (tmp_path / "e.yaml").write_text(text)
    with pytest.raises(ConfigError, match=told):
        read(tmp_path / "e.yaml")


def test_examples():
    assert doctest.testmod(experiment).failed == 0
