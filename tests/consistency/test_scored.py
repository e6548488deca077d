"""What cannot be compared is left out, counted and said."""

from __future__ import annotations

import numpy as np
import pytest

from prerank.consistency import Scored, clean
from prerank.consistency.scored import head
from prerank.data import DataError

NAN = float("nan")


def scored(**changes) -> Scored:
    columns = {"request": [1, 1, 1, 2, 2], "s": [3.0, 2.0, 1.0, 1.0, 2.0], "t": [0.3, 0.2, 0.1, 0.5, 0.4]} | changes
    return Scored(**{k: np.asarray(v) if not isinstance(v, tuple) else v for k, v in columns.items()})


def test_nothing_to_say() -> None:
    found = clean(scored())
    assert repr(found) == "<Scored 2 requests, 5 candidates>"
    assert found.said == ()


@pytest.mark.parametrize(
    ("changes", "rows", "said"),
    [
        ({"s": [3.0, NAN, 1.0, 1.0, 2.0]}, 4, "1 of 5 candidates have no finite score of pre-ranker: left out"),
        ({"against": [3.0, NAN, 1.0, np.inf, 2.0]}, 2, "2 of 5 candidates have no finite score of other pre-ranker: left out"),
        ({"request": [1, 1, 1, 1, 2]}, 4, "1 of 2 requests have one candidate to compare: left out"),
        ({"t": [0.3, 0.2, 0.1, 0.5, 0.5]}, 3, "1 of 2 requests have the same ranking score for all candidates: left out"),
        ({"t": [0.3, 0.2, 0.1, NAN, NAN]}, 3, "1 of 2 requests have no candidate with a score of the ranking model: left out"),
        ({"item": [7, 7, 8, 7, 8]}, 4, "1 candidates stand in their request already: left out, the one furthest in the cascade stays"),
    ],
)
def test_each_reason_is_said(changes, rows, said) -> None:
    found = clean(scored(**changes))
    assert len(found.s) == rows
    assert said in found.said


def test_candidates_without_a_ranking_score_stay_for_the_stages() -> None:
    found = clean(scored(t=[0.3, 0.2, NAN, 0.5, 0.4], stage=[0, 1, 2, 0, 1]))
    assert (len(found.s), len(found.compared().s)) == (5, 4)
    assert found.said == ("1 of 5 candidates have no score of the ranking model: left out, but for the recall of logged stages",)


def test_of_a_duplicate_the_one_furthest_in_the_cascade_stays() -> None:
    found = clean(scored(item=[7, 7, 8, 7, 8], stage=[2, 0, 1, 0, 0]))
    assert found.s.tolist() == [2.0, 1.0, 1.0, 2.0]


def test_requests_come_one_after_another() -> None:
    found = clean(scored(request=[2, 1, 2, 1, 1]))
    assert found.request.tolist() == [1, 1, 1, 2, 2]
    assert found.s.tolist() == [2.0, 1.0, 2.0, 3.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bid": [1.0, 1.0, -2.0, 1.0, 1.0]}, "bid: must be numbers from 0 on, 1 are not, first at row 3: -2"),
        ({"truth": [1.0, NAN, 1.0, 1.0, 1.0]}, "truth: must be numbers from 0 on, 1 are not, first at row 2: nan"),
        ({"s": [NAN] * 5}, "pre-ranker: none of 5 candidates has a score"),
        ({"request": [1, 2, 3, 4, 5]}, "scored requests: no request has two candidates that the ranking model tells apart\n"
                                       "scored requests: 5 of 5 requests have one candidate to compare: left out"),
    ],
)  # fmt: skip
def test_what_cannot_be_mended_is_refused(changes, message) -> None:
    with pytest.raises(DataError) as error:
        clean(scored(**changes))
    assert str(error.value) == message


def test_the_head_is_the_most_popular_fifth_of_the_items() -> None:
    item = np.array([0, 1, 2, 3, 4, 0, 1])
    assert head(item, np.array([9, 5, 3, 2, 1, 9, 5])).tolist() == [True, False, False, False, False, True, False]
    assert head(item, np.array([9, 9, 3, 2, 1, 9, 9])).tolist() == [True, True, False, False, False, True, True]
