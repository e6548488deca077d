"""A growing vocabulary against plain dicts, step by step (hypothesis), and what it holds, saves and refuses."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from prerank.config import Growth
from prerank.data import DataError, encoder, prepare
from prerank.data.encoder import Categorical
from prerank.data.growing import BLOCK, SWEEPS, GrowingVocabulary
from prerank.data.vocabulary import Vocabulary
from tests.data.conftest import FEATURES, Make

WORDS = [f"w{i}" for i in range(14)]
NUMBERS = [*range(-5, 8), 2**62]


class Oracle:
    """The same rules in dicts: value -> last use, value -> sightings. It does not know rows, only who has one."""

    def __init__(self, values: list, growth: Growth, expire: int) -> None:
        self.places, self.growth, self.expire = growth.capacity - 3, growth, expire
        self.last: dict = dict.fromkeys(values)
        self.now, self.before = Counter(), Counter()
        self.clock = self.swept = self.counted = None

    def assign(self, batch: list, ts: list[int], row_of: dict) -> set:
        """Values that must have a row after it; row_of breaks ties between values that were used last at one time."""
        if self.clock is None:
            self.clock = self.swept = self.counted = max(ts)
            self.last = dict.fromkeys(self.last, max(ts))
        self.clock = max(self.clock, *ts)
        if self.clock - self.swept >= max(1, self.expire // SWEEPS):
            self.swept = self.clock
            self.last = {v: t for v, t in self.last.items() if t >= self.clock - self.expire}
        if self.clock - self.counted > self.expire:
            self.counted = self.clock
            self._rotate()
        latest: dict = {}
        for v, t in zip(batch, ts, strict=True):
            if v is not None:
                latest[v] = max(latest.get(v, t), t)
        counts = Counter(v for v in batch if v is not None)
        known = [v for v in latest if v in self.last]
        new = [v for v in latest if v not in self.last]
        self.last |= {v: max(self.last[v], latest[v]) for v in known}
        spared = set(known)
        for start in range(0, len(new), self.growth.candidates):
            part = new[start : start + self.growth.candidates]
            if self.growth.admit_after > 1:
                if len({*self.now, *part}) > self.growth.candidates:
                    self._rotate()
                self.now.update({v: counts[v] for v in part})
                part = [v for v in part if self.now[v] + self.before[v] >= self.growth.admit_after]
            free = self.places - len(self.last)
            if len(part) > free:
                self._evict(max(len(part) - free, self.places // BLOCK), spared, row_of)
            for v in part[: self.places - len(self.last)]:
                self.last[v] = latest[v]
                self.now[v] = self.before[v] = 0
                if self.growth.admit_after == 1:
                    del self.now[v], self.before[v]
                spared.add(v)
        return set(self.last)

    def _rotate(self) -> None:
        self.before, self.now = self.now, Counter()

    def _evict(self, n: int, spared: set, row_of: dict) -> None:
        order = sorted((v for v in self.last if v not in spared), key=lambda v: (self.last[v], row_of[v]))
        for v in order[:n]:
            del self.last[v]


class Growing(RuleBasedStateMachine):
    """Batches of any times; after each, rows are those of the oracle's values, and no two values share one."""

    @initialize(text=st.booleans(), known=st.integers(0, 4), capacity=st.integers(7, 12), admit=st.integers(1, 3),
                expire=st.sampled_from([3, 50, 1_000]), candidates=st.integers(1, 6))  # fmt: skip
    def begin(self, text: bool, known: int, capacity: int, admit: int, expire: int, candidates: int) -> None:
        self.words = WORDS if text else NUMBERS
        growth = Growth(capacity=capacity, admit_after=admit, expire_after=f"{expire / 1000}s", candidates=candidates)
        self.dtype = pl.String() if text else pl.Int64()
        self.vocabulary = GrowingVocabulary(pl.Series(self.words[:known], dtype=self.dtype), growth)
        self.oracle = Oracle(self.words[:known], growth, expire)
        self.row_of: dict = {v: i + 3 for i, v in enumerate(self.words[:known])}
        self.asked = dict(self.row_of)  # rows when changes() was last called
        self.now = 10_000
        self.bytes = self.vocabulary.bytes
        assert self.vocabulary.changes().admitted.tolist() == []

    @rule(picked=st.lists(st.none() | st.integers(0, 13), min_size=1, max_size=12), passed=st.sampled_from([0, 0, 1, 2, 20, 60, 400]),
          late=st.lists(st.sampled_from([0, 0, 0, 1, 5, 2_000]), min_size=12, max_size=12))  # fmt: skip
    def assign(self, picked: list[int | None], passed: int, late: list[int]) -> None:
        batch = [None if i is None else self.words[i] for i in picked]
        self.now += passed
        ts = [self.now - late[i] for i in range(len(batch))]
        before = dict(self.row_of)
        rows = self.vocabulary.assign(pl.Series(batch, dtype=self.dtype), np.array(ts, np.int64)).tolist()
        held = self.oracle.assign(batch, ts, before)
        assert set(self.vocabulary.values.to_list()) == held
        said = dict(zip(batch, rows, strict=True))
        assert all((said[v] >= 3) == (v in held) if v is not None else said[v] == 1 for v in said)
        self.row_of = {v: r for v, r in zip(self.words, self.vocabulary.rows(pl.Series(self.words, dtype=self.dtype), "x").tolist(),
                                            strict=True) if r >= 3}  # fmt: skip
        assert set(self.row_of) == held
        assert all(self.row_of[v] == said[v] for v in said if said[v] >= 3)
        assert all(self.row_of[v] == before[v] for v in before if v in held and v not in batch)  # nobody is moved

    @rule()
    def changes(self) -> None:
        admitted, released = (set(rows.tolist()) for rows in self.vocabulary.changes())
        was, now = ({r: v for v, r in rows.items()} for rows in (self.asked, self.row_of))
        assert {r for r in now if was.get(r) != now[r]} <= admitted <= set(now)  # a value that went and came back begins anew as well
        assert {r for r in was if r not in now} <= released
        assert not released & set(now)
        self.asked = dict(self.row_of)

    @rule()
    def save_and_load(self) -> None:
        """What comes back goes on as if nothing had happened."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "v.growing.parquet"
            self.vocabulary.save(path)
            self.vocabulary.save(path)
            assert len(list(Path(folder).iterdir())) == 2
            self.vocabulary = GrowingVocabulary.load(path)

    @invariant()
    def bounded(self) -> None:
        if hasattr(self, "vocabulary"):
            rows = list(self.row_of.values())
            assert len(set(rows)) == len(rows)
            assert all(3 <= r < self.vocabulary.size for r in rows)
            assert self.vocabulary.bytes == self.bytes


Growing.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestGrowing = Growing.TestCase


def test_texts_that_share_a_hash_never_share_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The later of two stays unknown: it would read, and write, the other's weights."""
    monkeypatch.setattr(GrowingVocabulary, "_hashes", lambda self, values: values.str.len_bytes().to_numpy().astype(np.int64))
    vocabulary = GrowingVocabulary(pl.Series(["a", "bb"]), Growth(capacity=20, admit_after=1))
    assert vocabulary.assign(["a", "c", "bb", "dd", "eee", "fff", "eee"], 5).tolist() == [3, 2, 4, 2, 5, 2, 5]
    assert vocabulary.rows(["a", "c", "fff"], "x").tolist() == [3, 2, 2]


def test_a_value_is_not_given_up_for_another_of_its_batch() -> None:
    vocabulary = GrowingVocabulary(pl.Series([1, 2]), Growth(capacity=6, admit_after=1))
    assert vocabulary.assign([1], 100).tolist() == [3]
    rows = vocabulary.assign([2, 7, 8, 9], np.array([1, 200, 200, 200]))  # 2 is the least recently used of all, and in use
    assert rows.tolist()[0] == 4
    assert sorted(rows.tolist()[1:]) == [2, 3, 5]
    assert vocabulary.values.to_list() != [1, 2]


@pytest.mark.parametrize(("values", "capacity", "match"), [
    ([1, 2, 3], 5, r"growth 'item': capacity must be at least 6, the values of train and three reserved rows; got 5"),
    ([1.5], 10, r"growth 'item': values must be integers or text; they are Float64"),
])  # fmt: skip
def test_what_is_refused(values: list, capacity: int, match: str) -> None:
    with pytest.raises(DataError, match=match):
        GrowingVocabulary(pl.Series(values), Growth(capacity=capacity), "item")


def test_values_of_another_type_are_told() -> None:
    vocabulary = GrowingVocabulary(pl.Series([1]), Growth(capacity=5))
    with pytest.raises(DataError, match=r"feature 'item': 1 value is not an integer, first at row 2: 'x'"):
        vocabulary.assign(["1", "x"], 5, "feature 'item'")
    assert vocabulary.assign([], 5).tolist() == []


def test_a_file_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    vocabulary = GrowingVocabulary(pl.Series([1]), Growth(capacity=5))
    path = tmp_path / "v.growing.parquet"
    with pytest.raises(DataError, match="cannot be read"):
        GrowingVocabulary.load(path)
    vocabulary.save(path)
    beside = next(tmp_path.glob("*.npz"))
    beside.write_bytes(beside.read_bytes()[:40])
    with pytest.raises(DataError, match=r"v.growing.parquet': cannot be read"):
        GrowingVocabulary.load(path)
    Vocabulary(pl.Series([1])).save(path)
    with pytest.raises(DataError, match="cannot be read"):
        GrowingVocabulary.load(path)


def test_encoders_know_grown_ids_when_they_are_loaded(tmp_path: Path) -> None:
    vocabulary = GrowingVocabulary(pl.Series(["a"]), Growth(capacity=9, admit_after=1))
    encoders = {"item": Categorical("item", vocabulary), "seen": encoder.Many("seen", vocabulary, 3, "last")}
    before = encoder.digest(encoders)
    vocabulary.assign(["new"], 5)
    encoder.save(encoders, tmp_path)
    loaded = encoder.load(tmp_path)
    assert loaded["item"].encode(["new", "a", "other", None]).tolist() == [4, 3, 2, 1]
    assert loaded["seen"].encode([["a", "new"]]).tolist() == [[3, 4, 0]]
    assert loaded["item"].size == 9
    assert loaded["item"].vocabulary is loaded["seen"].vocabulary
    assert encoder.digest(encoders) == encoder.digest(loaded) != before


def test_prepared_data_have_tables_of_the_capacity(make: Make) -> None:
    data = make()
    plain = prepare(data)
    assert "growth" not in data.model_dump(mode="json")  # so that fingerprints of before stay what they were
    grown = prepare(data.model_copy(update={"growth": {"user": Growth(capacity=50, expire_after="2h")}}))
    assert grown.fingerprint != plain.fingerprint
    assert grown.sizes == {**plain.sizes, "user": 50}
    assert len(grown.counts["user"]) == 50
    assert grown.users["user"].tolist() == plain.users["user"].tolist()
    assert grown.encoders["user"].encode([7, 99]).tolist() == plain.encoders["user"].encode([7, 99]).tolist()
    assert grown.encoders["user"].vocabulary.growth.expire_after == "2h"


@pytest.mark.parametrize(("growth", "match"), [
    ({"usr": {"capacity": 50}}, r"data.growth: 'usr' must be a feature with a vocabulary of its own; .*user"),
    ({"length": {"capacity": 50}}, r"data.growth: 'length' must be a feature with a vocabulary of its own"),
    ({"user": {"capacity": 4}}, r"growth 'user': capacity must be at least \d, .* got 4"),
])  # fmt: skip
def test_growth_of_what_has_no_vocabulary_is_refused(make: Make, growth: dict, match: str) -> None:
    assert FEATURES[0]["name"] == "user"
    with pytest.raises(DataError, match=match):
        prepare(make(growth=growth))
