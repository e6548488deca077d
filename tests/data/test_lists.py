"""Lists against a walk in plain Python: which rows, in which order, and what is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prerank.data import DataError, lists
from prerank.data.lists import open_lists, train_items
from tests.data.cascade import cascade_dataset, cascade_log, expected_lists


@settings(max_examples=12)
@given(
    seed=st.integers(0, 10_000), by=st.sampled_from(["request", "user"]), split=st.sampled_from(["train", "test"]), filtered=st.booleans()
)
def test_lists_are_what_a_plain_walk_makes(
    tmp_path_factory: pytest.TempPathFactory, seed: int, by: str, split: str, filtered: bool
) -> None:
    log = cascade_log(seed)
    dataset = cascade_dataset(log, tmp_path_factory.mktemp("cascade"))
    expected = expected_lists(dataset, log, split, by, filtered)
    found = open_lists(dataset, split, by, filtered=filtered)  # type: ignore[arg-type]
    names = log[by].to_numpy()
    got = [found.order[a:b].tolist() for a, b in zip(found.offsets, found.offsets[1:], strict=False)]
    assert {names[rows[0]]: rows for rows in got} == expected
    assert len(got) == len(expected) == len(found)
    stages = dataset.stage
    assert stages is not None
    for rows, sizes, positive in zip(got, found.sizes, found.positive, strict=True):
        assert sizes.tolist() == np.bincount(stages[rows], minlength=5).tolist()
        assert positive == bool((dataset.labels[rows, 0] > 0).any())
    f = found.found
    assert (f.lists, f.rows) == (len(expected), sum(map(len, expected.values())))
    assert f.rows + f.duplicates + f.liked == len(dataset.rows(split, None))
    assert f.of_one == sum(len(rows) == 1 for rows in got)
    assert f.without_impressions == sum(stages[rows[0]] > 0 for rows in got)
    assert dataset.teacher is not None
    assert f.without_teacher == int(np.isnan(dataset.teacher[found.order]).sum())


def test_many_buckets_make_the_same_lists_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = cascade_log(3, requests=60)
    whole = cascade_dataset(log, tmp_path)
    one = open_lists(whole, "train", "request")
    monkeypatch.setattr(lists, "BUCKET", 40)
    monkeypatch.setattr(lists, "_CHUNK", 17)
    dealt = cascade_dataset(log, tmp_path, cache=str(tmp_path / "other"))
    many = open_lists(dealt, "train", "request")

    def rows(found: lists.Lists) -> list[list[int]]:
        return sorted(found.order[a:b].tolist() for a, b in zip(found.offsets, found.offsets[1:], strict=False))

    assert rows(one) == rows(many)
    assert one.found == many.found
    offsets, items = train_items(dealt)
    for user in range(len(dealt.user_ids)):
        mine = [dealt.item_row[r] for r in dealt.rows("train", None) if dealt.user_row[r] == user]
        assert items[offsets[user] : offsets[user + 1]].tolist() == mine


def test_a_request_of_two_users_is_an_error(tmp_path: Path) -> None:
    log = cascade_log(1).with_row_index("n")
    twice = log.with_columns(request=log["request"].clip(0, 3)).drop("n")
    dataset = cascade_dataset(twice, tmp_path, split={"kind": "user", "validation": 0, "test": 0})
    with pytest.raises(DataError, match=r"request: a request must be one user's; \d+ hold rows of several, the first one of user \d"):
        open_lists(dataset, "train", "request")


def test_a_log_without_requests_has_lists_by_user_alone(tmp_path: Path) -> None:
    dataset = cascade_dataset(cascade_log(1), tmp_path, request=None, split={"kind": "random"})
    assert len(open_lists(dataset, "train", "user")) == len(np.unique(dataset.user_row[dataset.rows("train", None)]))
    with pytest.raises(DataError, match="lists by request: the log names none"):
        open_lists(dataset, "train", "request")
