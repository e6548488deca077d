"""Label waiting against brute force, whatever comes in whatever order; and what it does to bad events, memory and restarts."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prerank.schema import Feature, Schema
from prerank.stream import (
    Correction,
    Entry,
    Feedback,
    Impression,
    LabelWaiting,
    Ready,
    Shadow,
    StateError,
    Tick,
    Waiting,
    encode,
    read_dead,
    read_row,
    typed,
)
from prerank.stream.event import LONGEST
from tests.stream.oracle import Oracle, Rules

NOW = 200_000  # when everything is appended, ms
FULL = settings(max_examples=200, deadline=None)
QUICK = settings(max_examples=80, deadline=None)


def seconds(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high).map(lambda s: s * 1000)


requests, items, kinds = st.integers(0, 2), st.integers(0, 1), st.sampled_from(["click", "buy", "like"])
anything = st.one_of(
    st.builds(lambda r, i, ts: encode(Impression(request=r, user=1, item=i, ts=ts)), requests, items, seconds(0, 150)),
    st.builds(lambda r, i, ts, k, v: encode(Feedback(request=r, item=i, ts=ts, kind=k, value=v)), requests, items, seconds(0, 150),
              kinds, st.sampled_from([1.0, 2.5])),
    st.builds(lambda ts: encode(Tick(ts=ts)), seconds(0, 150)),
    st.sampled_from([b"", b"{}", b'{"type":"removal","side":"item","id":1,"ts":1}']),
)  # fmt: skip
logs = st.lists(anything, min_size=5, max_size=25).map(lambda ms: [Entry(2 * n, NOW - 60_000 * (n % 5 == 4), m) for n, m in enumerate(ms)])
rules = st.builds(Rules, st.sampled_from([{"click": 10_000}, {"click": 30_000, "buy": 5_000}, {"buy": 1_000, "click": 60_000}]),
                  seconds(0, 20), seconds(0, 40), seconds(0, 10), st.booleans())  # fmt: skip


def waiting(rules: Rules, keep: int = 1000, corrections: bool = True) -> LabelWaiting:
    spans = {name: f"{getattr(rules, name) / 1000}s" for name in ("lateness", "remember", "skew")}
    kinds = {k: f"{w / 1000}s" for k, w in rules.windows.items()}
    return LabelWaiting(Waiting(kinds=kinds, early=rules.early, keep=keep, corrections=corrections, **spans))


def of(entries: list[bytes], at: int = NOW) -> list[Entry]:
    return [Entry(n, at, m) for n, m in enumerate(entries)]


@FULL
@given(logs, rules)
def test_against_brute_force(entries, rules):
    oracle, ours = Oracle(entries, rules), waiting(rules)
    ready = ours.push_all(entries)
    messages = [read_row(m) for m in ready.rows]
    rows = [r for r in messages if not isinstance(r, Correction)]
    expected = oracle.rows()
    assert [(r.impression, r.labels, r.delay, r.appended, r.source.offset) for r in rows] == [
        (e["impression"], e["labels"], e["delay"], e["appended"], entries[e["at"]].offset) for e in expected
    ]
    assert [m.source for m in messages] == sorted({m.source for m in messages})
    late = [(r.source.offset, r.impression, r.kind) for r in messages if isinstance(r, Correction)]
    assert sorted(late, key=str) == sorted(((entries[at].offset, oracle.accepted[i], kind) for at, i, kind in oracle.late()), key=str)
    letters = [read_dead(m) for m in ready.dead]
    assert [(d.offset, f"dead {d.reason}") for d in letters] == [
        (e.offset, v) for e, v in zip(entries, oracle.verdict, strict=True) if v.startswith("dead")
    ]
    counted = Counter(oracle.verdict)
    assert ours.counts["entities"] == counted["entity"]
    assert ours.counts["repeated_impressions"] == counted["duplicate"]
    assert ours.counts["late_feedback"] == counted["too late for any"] + len(late)
    assert ours.counts["corrections"] == len(late)
    assert ours.counts["unmatched"] == oracle.unmatched()
    assert {name: ours.counts[name] for name in ("outside", "repeated_feedback")} == oracle.uncounted()
    assert ours.latest == oracle.latest(len(entries) - 1)


@FULL
@given(logs, rules, st.lists(st.integers(0, 25), max_size=3))
def test_cut_anywhere_saved_and_restored_it_goes_on_as_if_nothing_had_happened(entries, rules, cuts):
    whole = waiting(rules)
    expected = whole.push_all(entries)
    rows, dead, state = [], [], None
    edges = sorted({0, len(entries), *(c for c in cuts if c < len(entries))})
    for begin, end in pairwise(edges):
        part = waiting(rules)
        if state is not None:
            part.restore(state)
        ready = part.push_all(entries[begin:end])
        rows, dead, state = rows + ready.rows, dead + ready.dead, part.state()
    assert (rows, dead) == (expected.rows, expected.dead)
    if state is not None:
        assert state == whole.state()


@FULL
@given(logs, rules, st.integers(1, 3))
def test_memory_is_bounded_and_nothing_is_joined_twice(entries, rules, keep):
    ours = waiting(rules, keep, corrections=False)
    rows, held = [], 0
    for entry in entries:
        rows += [read_row(m) for m in ours.push(entry).rows]
        held = max(held, len(ours))
        assert len(ours._orphans) <= keep
        assert len(ours._orphans._due) <= 2 * keep + 1001
    assert held <= keep
    shown = Counter((r.impression.request, r.impression.item, r.impression.ts) for r in rows)
    assert max(shown.values(), default=1) == 1
    counts = ours.counts
    still = sum(not h.out for h in ours._rows.values())
    assert counts["impressions"] == counts["rows"] + still + counts["late_impressions"] + counts["repeated_impressions"]


@QUICK
@given(st.lists(st.tuples(requests, st.integers(0, 5), seconds(0, 60), st.none() | seconds(0, 30)), min_size=1, max_size=15), st.randoms())
def test_order_of_arrival_does_not_matter_within_the_lateness(shown, random):
    """Every event is delayed by less than `lateness`: the same rows come out as if none was."""
    events = {}
    for request, item, ts, click in shown:
        events.setdefault(("i", request, item), Impression(request=request, user=0, item=item, ts=ts))
        if click is not None:
            ts = events["i", request, item].ts
            events.setdefault(("f", request, item), Feedback(request=request, item=item, ts=ts + click, kind="click"))
    inorder = sorted(events.values(), key=lambda e: e.ts)
    shuffled = sorted(inorder, key=lambda e: e.ts + random.uniform(0, 9_999))
    end = encode(Tick(ts=190_000))
    found = []
    for order in (inorder, shuffled):
        ours = LabelWaiting(Waiting(kinds={"click": "20s"}, lateness="10s", early=False))
        rows = [read_row(m) for m in ours.push_all(of([*map(encode, order), end])).rows]
        assert ours.counts["late_impressions"] == ours.counts["late_feedback"] == 0
        found.append({(r.impression.request, r.impression.item): (r.impression, r.labels) for r in rows})
        assert len(rows) == len(found[-1]) == sum(isinstance(e, Impression) for e in order)
    assert found[0] == found[1]


def impression(request: object = "r", item: object = 1, ts: int = 1000, **more: object) -> bytes:
    return json.dumps({"type": "impression", "request": request, "user": 7, "item": item, "ts": ts, **more}).encode()


def click(ts: int, request: str = "r", item: int = 1) -> bytes:
    return encode(Feedback(request=request, item=item, ts=ts, kind="click"))


def test_a_row_is_the_impression_as_it_was_logged_with_its_labels():
    ours = LabelWaiting(Waiting(kinds={"click": "10s", "buy": "20s"}, early=True, lateness="5s"))
    shown = impression(features={"tab": 1, "tags": ["a", 2], "age": None}, score=0.5, generation=3, memory="m1", experiment="e", arm="b",
                       position=4)  # fmt: skip
    assert ours.push_all(of([shown, click(4000), encode(Tick(ts=25_999))])) == ([], [])
    ready = ours.push(Entry(3, 77, encode(Tick(ts=26_000))))
    row = read_row(ready.rows[0])
    assert row.impression == msgspec.json.decode(shown, type=Impression)
    assert (row.labels, row.delay, row.appended, row.source) == ({"click": 1.0, "buy": 0.0}, 25_000, 77, (3, 0))
    assert (ours.counts["rows"], ours.counts["positive"]) == (1, 1)


@pytest.mark.parametrize(("early", "at"), [(True, 1), (False, 3)])
def test_a_row_goes_out_when_all_came_or_at_the_end_of_its_windows(early, at):
    ours = LabelWaiting(Waiting(kinds={"click": "10s"}, lateness="1s", early=early))
    ready = [ours.push(e).rows for e in of([impression(), click(2000), encode(Tick(ts=11_999)), encode(Tick(ts=12_000))])]
    assert [len(r) for r in ready].index(1) == at


def test_the_window_has_both_its_ends():
    for ts, label in ((-4001, 0.0), (-4000, 1.0), (10_000, 1.0), (10_001, 0.0)):
        ours = LabelWaiting(Waiting(kinds={"click": "10s"}, early=True, lateness="1m", skew="4s"))
        begin = 50_000
        (row,) = ours.push_all(of([impression(ts=begin), click(begin + ts), encode(Tick(ts=200_000))])).rows
        assert read_row(row).labels == {"click": label}, ts
        assert ours.counts["outside"] == (label == 0.0)


def test_late_feedback_is_counted_and_on_demand_corrects():
    for corrections in (False, True):
        ours = LabelWaiting(Waiting(kinds={"click": "10s", "buy": "5s"}, early=True, lateness="0s", remember="1m", corrections=corrections))
        ready = ours.push_all(of([impression(), encode(Tick(ts=11_000)), click(3000), click(3001)]))
        assert ours.counts["late_feedback"] == 1
        assert ours.counts["repeated_feedback"] == 1
        assert len(ready.rows) == 1 + corrections
        if corrections:
            row, correction = map(read_row, ready.rows)
            assert isinstance(correction, Correction)
            assert (correction.impression, correction.kind, correction.labels) == (row.impression, "click", {"click": 1.0, "buy": 0.0})
            assert row.labels == {"click": 0.0, "buy": 0.0}
            assert correction.source == (2, 0)


def test_what_was_forgotten_for_want_of_room_is_not_joined_again():
    for keep in (1, 2):
        ours = LabelWaiting(Waiting(kinds={"click": "10s"}, early=True, keep=keep))
        shown = [impression(request=n, ts=1000 * n) for n in range(4)]
        rows = [read_row(m) for m in ours.push_all(of([*shown, shown[0], shown[3 - keep], shown[3]])).rows]
        assert [r.impression.request for r in rows] == list(range(4 - keep))
        assert (ours.counts["forced"], ours.counts["late_impressions"], ours.counts["repeated_impressions"]) == (4 - keep, 2, 1)


def test_a_row_is_remembered_until_its_time_is_over():
    """Here until 10 s of window and 5 s more have passed; then the same request is another one."""
    for end, repeated in ((15_999, 1), (16_000, 0)):
        ours = LabelWaiting(Waiting(kinds={"click": "10s"}, early=True, lateness="0s", remember="5s"))
        ready = ours.push_all(of([impression(ts=1000), encode(Tick(ts=end)), impression(ts=15_000), encode(Tick(ts=100_000))]))
        assert (ours.counts["repeated_impressions"], len(ready.rows)) == (repeated, 2 - repeated)


def test_feedback_waits_for_its_impression_as_long_as_one_could_come():
    for tick, labels in ((63_999, [1.0]), (64_000, [])):
        ours = LabelWaiting(Waiting(kinds={"click": "10s"}, early=True, lateness="0s", skew="4s"))
        ready = ours.push_all(of([click(50_000), encode(Tick(ts=tick)), impression(ts=54_000)]))
        assert [read_row(m).labels["click"] for m in ready.rows] == labels
        assert (ours.counts["unmatched"], ours.counts["late_impressions"]) == (not labels, not labels)


def test_a_clock_may_run_ahead_by_its_skew():
    ours = LabelWaiting(Waiting(kinds={"click": "10s"}, early=True, skew="5m"))
    ours.push_all(of([impression(ts=NOW + 300_000)]))
    assert (ours.counts["dead"], ours.latest) == (0, NOW + 300_000)


BAD = {
    "no JSON": (b"\xff\x00", "malformed"),
    "half": (impression()[:-5], "malformed"),
    "an array": (b"[" * 200_000, "malformed"),
    "another type": (b'{"type":"purchase","ts":1}', "malformed"),
    "NaN": (impression(score=float("nan")), "malformed"),
    "infinite feature": (impression(features={"x": float("inf")}), "malformed"),
    "beyond a float": (impression().replace(b"1000", b"1e999"), "malformed"),
    "a word for a time": (impression(ts="now"), "malformed"),
    "a negative time": (impression(ts=-1), "malformed"),
    "an unknown key": (impression(postion=3), "malformed"),
    "a missing key": (b'{"type":"impression","request":1,"item":2,"ts":3}', "malformed"),
    "a list for an id": (impression(item=[1]), "malformed"),
    "true for an id": (impression(item=True), "malformed"),
    "an integer of 100 digits": (impression(item=10**100), "malformed"),
    "an id of a million letters": (impression(item="x" * 1_000_000), "too_large"),
    "an id of two KiB": (impression(item="x" * 2048), "malformed"),
    "an id of two KiB of few letters": (impression(item="é" * 1000).replace(b"\\u00e9", "é".encode()), "long_id"),
    "an empty id": (impression(item=""), "malformed"),
    "a lone surrogate": (impression(item="x").replace(b'"x"', b'"\\ud800"'), "malformed"),
    "nested features": (impression(features={"x": {"y": 1}}), "malformed"),
    "far future": (impression(ts=NOW + 300_001), "far_future"),
    "seconds that are microseconds": (impression(ts=2**52), "far_future"),
    "a kind that nobody waits for": (encode(Feedback(request="r", item=1, ts=1, kind="clik")), "unknown_kind"),
    "too large": (b" " * (LONGEST + 1), "too_large"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_events_are_dead_letters_and_stop_nothing(name):
    data, reason = BAD[name]
    ours = LabelWaiting(Waiting(kinds={"click": "10s"}, early=True, lateness="0s"))
    ready = ours.push_all(of([impression(ts=5000), data, click(6000)]))
    (letter,) = map(read_dead, ready.dead)
    assert (letter.reason, letter.offset, letter.ts, letter.size) == (reason, 1, NOW, len(data))
    assert letter.data == data[: 1 << 16]
    assert 0 < len(letter.detail) <= 400
    assert (ours.counts["dead"], ours.counts[f"dead {reason}"]) == (1, 1)
    assert [read_row(m).labels for m in ready.rows] == [{"click": 1.0}]


SCHEMA = Schema(features=(Feature(name="price", side="item", kind="numeric"), Feature(name="tags", side="item", kind="multi"),
                          Feature(name="my tab", side="context"), Feature(name="v", side="user", kind="vector", dim=2)),
                user_id="user", item_id="item")  # fmt: skip


@pytest.mark.parametrize(("features", "good"), [
    ({"price": 3, "tags": ["a", 2], "my tab": 1, "v": [1, 2.5], "unknown to the schema": [1]}, True),
    ({"unknown to the schema": {"any": [1]}}, False),
    ({"price": None, "tags": None, "my tab": None, "v": None}, True),
    ({"tags": "a|b", "my tab": "x"}, True),
    ({}, True),
    ({"price": "3"}, False), ({"price": [3]}, False), ({"tags": 3}, False), ({"tags": [["a"]]}, False), ({"my tab": [1]}, False),
    ({"v": [1.0]}, False), ({"v": [1.0, "x"]}, False), ({"price": 10**30}, False),
])  # fmt: skip
def test_a_schema_refuses_features_of_wrong_types(features, good):
    ours = LabelWaiting(Waiting(kinds={"click": "10s"}, early=True), typed.decoder(SCHEMA))
    upsert = json.dumps({"type": "upsert", "side": "item", "id": 1, "ts": 1, "features": features}).encode()
    ready = ours.push_all(of([impression(features=features), upsert, click(2000), encode(Tick(ts=3000))]))
    assert (len(ready.rows), ours.counts["dead malformed"] if not good else 0) == (good, 0 if good else 2)
    assert ours.counts["entities"] == good


def test_what_nobody_saw_is_passed_by():
    ours = LabelWaiting(Waiting(kinds={"click": "10s"}, early=True, lateness="0s"))
    shadow = encode(Shadow(request="r", user=1, ts=50_000, arm="next", items=[1, 2], scores=[0.2, 0.1]))
    ready = ours.push_all(of([impression(ts=5000), shadow]))
    assert ready == Ready([], [])
    assert (ours.counts["shadows"], ours.latest) == (1, 5000)


def test_a_state_of_other_settings_or_none_is_refused():
    ours = LabelWaiting(Waiting(kinds={"click": "10s"}, early=True))
    state = ours.state()
    with pytest.raises(StateError, match="was saved with other kinds, lateness; keep those, or take another folder"):
        LabelWaiting(Waiting(kinds={"click": "20s"}, early=True, lateness="2m")).restore(state)
    with pytest.raises(StateError, match="cannot be read"):
        ours.restore(state[:-3])


@pytest.mark.parametrize(("wrong", "told"), [
    ({"kinds": {}}, "at least 1"), ({"kinds": {"click": "0s"}}, "must be longer than nothing"),
    ({"kinds": {"click": "ten"}}, "a time span must be a number and s, m, h or d"), ({"kinds": {"click": "1s"}, "keep": 0}, "greater than"),
    ({"kinds": {"click": "1s"}, "latenes": "1m"}, "Extra inputs"),
])  # fmt: skip
def test_settings(wrong, told):
    with pytest.raises(ValueError, match=told):
        Waiting.model_validate(wrong)
