"""Who is known: the prepared, and a bounded number of those that the stream met."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prerank.config import ConfigError, parse
from prerank.data import DataError
from prerank.data.encoder import Categorical
from prerank.data.vocabulary import Vocabulary
from prerank.online.catalogue import Entities
from prerank.online.roles import check
from tests.online.world import config

PREPARED, REMEMBER = 4, 5
batches = st.lists(st.lists(st.integers(0, 15), max_size=REMEMBER), max_size=30)


def entities(remember: int = REMEMBER) -> Entities:
    ids = pl.Series("id", list(range(PREPARED)))
    encoder = Categorical("item", Vocabulary(ids))
    return Entities(ids, {"item": encoder.encode(ids)}, {"item": encoder}, "item", remember)


@given(batches)
def test_the_least_recently_used_make_room(given_ids: list[list[int]]) -> None:
    """Against a plain list, whose first was used longest ago."""
    made, known = entities(), list[int]()
    for ids in given_ids:
        rows = made.rows(ids).tolist()
        for value in ids:
            if value >= PREPARED:
                known = [*[k for k in known if k != value], value][-REMEMBER:]
        assert made.ids.gather(rows).to_list() == ids  # a row is that of its id
        assert set(made.ids.to_list()) == {*range(PREPARED), *known}
        assert len(made) == PREPARED + len(known) == len(made.ids)
        assert made.held(range(16)) == sorted({*range(PREPARED), *known})
        assert made.ids.gather(made.places(made.held(range(16)))).to_list() == made.held(range(16))
        assert made.column("item", np.arange(len(made))).tolist() == [3, 4, 5, 6] + [2] * len(known)


@given(batches, st.integers(0, 30))
def test_a_run_that_goes_on_has_the_same_rows(given_ids: list[list[int]], cut: int) -> None:
    whole, begun = entities(), entities()
    for ids in given_ids[:cut]:
        whole.rows(ids)
        begun.rows(ids)
    resumed = entities()
    resumed.load(json.loads(json.dumps(begun.met)))
    for ids in given_ids[cut:]:
        assert whole.rows(ids).tolist() == resumed.rows(ids).tolist()
        whole.held(ids)  # looking is no use of it
    assert whole.met == resumed.met


def test_fewer_than_were_met_is_refused() -> None:
    made = entities()
    made.rows([10, 11, 12])
    with pytest.raises(DataError, match=r"online\.remember: must be at least 3, as many 'item' as the run has met; got 2"):
        entities(2).load(made.met)
    with pytest.raises(DataError, match="ids must be int, as in the log; got 'x'"):
        made.rows([13, "x"])
    assert len(made) == PREPARED + 3


def test_a_batch_must_fit(tmp_path) -> None:
    raw = config(tmp_path).model_dump(mode="json", exclude_unset=True)
    raw["online"]["remember"] = 63
    with pytest.raises(ConfigError, match=r"online\.remember: must be at least training\.batch_size, 64; got 63"):
        check(parse(raw), "two-tower")
