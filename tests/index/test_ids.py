"""Ids against a dict."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prerank.index import IdError, Ids, ids

integers = st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=100, deadline=None)
@given(known=st.lists(integers, unique=True, max_size=80), asked=st.lists(integers, max_size=80))
def test_rows_are_those_of_a_dict(known, asked):
    table = Ids(np.array(known, np.int64))
    asked = asked + known
    expected = [{v: i for i, v in enumerate(known)}.get(v, -1) for v in asked]
    assert table.rows(asked).tolist() == expected
    assert table.rows(np.array(asked, np.int64)).tolist() == expected


@pytest.fixture(params=["extension", "plain"])
def _either(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(ids, "maxsim", None)


@pytest.mark.usefixtures("_either")
def test_integers_with_and_without_the_extension():
    table = Ids(np.array([7, -1, 0, 2**62]))
    assert table.rows([0, 5, 2**62, -1]).tolist() == [2, -1, 3, 1]
    assert table.row(7) == 0
    with pytest.raises(IdError, match="id 'x' at position 1: must be an integer"):
        table.rows([1, "x"])
    with pytest.raises(IdError, match="at position 0: must fit in 64 bits"):
        table.rows([2**63])
    with pytest.raises(IdError, match="unique, 3 comes again at row 2"):
        Ids(np.array([3, 4, 3]))


def test_sequential_and_strided_ids_do_not_cluster():
    for step in (1, 2**32, 2**20):
        known = np.arange(5000, dtype=np.int64) * step
        assert (Ids(known).rows(known) == np.arange(5000)).all()


def test_text_ids():
    table = Ids(["a", "b"])
    assert table.rows(["b", "z", "a"]).tolist() == [1, -1, 0]
    with pytest.raises(IdError, match="id 5 at position 1: must be a string"):
        table.rows(["a", 5])
    with pytest.raises(IdError, match="got a binary array"):
        table.rows(np.array([1]))
    with pytest.raises(IdError, match="unique, a comes again at row 1"):
        Ids(["a", "a"])


def test_no_ids_at_all():
    assert Ids(np.array([], np.int64)).rows([1]).tolist() == [-1]
