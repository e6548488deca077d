"""What is in force: deltas applied in order and to their base alone, older generations refused, rollback, gaps asked about."""

from __future__ import annotations

import gc
import json
import shutil
import threading
import weakref
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from prerank import build
from prerank.config import Growth
from prerank.data.encoder import Categorical
from prerank.data.growing import GrowingVocabulary
from prerank.serving import GenerationError, Request, Scorer, open_current
from prerank.serving.change import Changes, Entities, Grown, apply
from prerank.serving.delta import deltas, write_delta
from prerank.serving.follow import wanted
from prerank.serving.live import Live, scorer_at
from prerank.serving.rollback import back
from prerank.serving.tape import warm
from tests.serving.deltas import changes, encoded, learned
from tests.serving.test_scorer import columns
from tests.serving.world import published, trained_logits, world

EVERY = np.arange(300)


def logits(scorer: Scorer, data, user: int, items: np.ndarray) -> np.ndarray:
    """Of one user's candidates, in their order."""
    ids = data.item_ids.gather(items).to_list()
    answer = scorer.score([Request(user=data.user_ids[user], candidates=ids)])[0]
    found = dict(zip(answer.items, answer.logits["click"], strict=True))
    return np.array([found.get(i, np.nan) for i in ids])


@pytest.mark.parametrize("name", ["inttower", "ranktower", "mf"])
def test_a_delta_serves_what_the_learned_model_says(tmp_path: Path, name: str) -> None:
    data = world()
    made = published(tmp_path, data, name)
    live = Live(tmp_path, build.served)
    before = live.scorer
    old = logits(before, data, 3, EVERY)
    after = learned(made, 1)
    write_delta(tmp_path, changes(made, after, data, EVERY))
    assert live.refresh()
    assert not live.refresh()
    generation = live.scorer.generation
    assert (generation.meta.number, generation.sequence, generation.posts) == (1, 1, 0)
    for user in range(5):
        expected = trained_logits(after, data, columns(data, user), EVERY)[:, 0]
        np.testing.assert_allclose(logits(live.scorer, data, user, EVERY), expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_array_equal(logits(before, data, 3, EVERY), old)  # who began with the old state reads it to the end
    again = scorer_at(tmp_path, build.served, 1, 1)
    np.testing.assert_array_equal(logits(again, data, 3, EVERY), logits(live.scorer, data, 3, EVERY))


def test_deltas_add_up_and_share_what_they_do_not_touch(tmp_path: Path) -> None:
    data = world()
    made = published(tmp_path, data)
    live = Live(tmp_path, build.served)
    base = live.scorer.generation
    one, two = learned(made, 1, rows=9), None
    write_delta(tmp_path, changes(made, one, data, np.arange(10)))
    assert live.refresh()
    first = live.scorer.generation
    two = learned(one, 2, rows=9)
    write_delta(tmp_path, Changes(items=encoded(two, data, np.array([5, 20]))))
    write_delta(tmp_path, Changes(removed=data.item_ids.gather([7]).to_numpy()))
    assert live.refresh()
    generation = live.scorer.generation
    assert generation.sequence == 3
    np.testing.assert_array_equal(first.items.rows[10:], base.items.rows[10:])
    assert (first.items.rows[:10] != base.items.rows[:10]).any(1).all()
    np.testing.assert_array_equal(np.delete(generation.items.rows, [5, 20], 0), np.delete(first.items.rows, [5, 20], 0))
    assert generation.weights["embeddings.tables.8"] is first.weights["embeddings.tables.8"]
    assert generation.users["city"] is base.users["city"]
    assert live.scorer.plain.embeddings.tables["8"].data_ptr() == first.weights["embeddings.tables.8"].data_ptr()
    found = logits(live.scorer, data, 0, EVERY)
    assert np.flatnonzero(np.isnan(found)).tolist() == [7]
    touched = trained_logits(one, data, columns(data, 0), np.arange(5))[:, 0]
    np.testing.assert_allclose(found[:5], touched, atol=1e-5, rtol=1e-5)


def test_new_items_users_and_vocabularies(tmp_path: Path) -> None:
    """An id that the growing vocabulary of a trainer admitted is encoded by the server, too."""
    data = world()
    city = GrowingVocabulary(pl.Series(["rome", "oslo", "lima"]), Growth(capacity=9, admit_after=1))
    data.encoders["city"], data.sizes["city"] = Categorical("city", city), 9
    made = published(tmp_path, data)
    live = Live(tmp_path, build.served)
    before = logits(live.scorer, data, 0, EVERY[:3])
    city.assign(["rome", "quito"], 5)
    new_ids = np.array([10**6, 10**6 + 1])
    entities = encoded(made, data, np.array([4, 5]))
    users = Entities(np.array([10**7]), {name: column[:1] for name, column in data.users.items()})
    grown = Grown(pl.Series(["quito"]), np.array([6], np.int32), np.array([5], np.int32))
    write_delta(tmp_path, Changes(vocabularies={"city": grown}, users=users,
                                  items=Entities(new_ids, {}, entities.flat, entities.bias)))  # fmt: skip
    assert live.refresh()
    generation = live.scorer.generation
    assert generation.encoders["city"].encode(["quito", "lima", "rome"]).tolist() == [6, 2, 3]
    assert (generation.meta.items, generation.meta.users) == (302, 61)
    answer = live.scorer.score([Request(user=10**7, candidates=[*new_ids.tolist(), *data.item_ids.gather([4, 5]).to_list()])])[0]
    assert not answer.unknown_user
    found = dict(zip(answer.items, answer.logits["click"], strict=True))
    twins = data.item_ids.gather([4, 5]).to_list()
    np.testing.assert_allclose([found[i] for i in new_ids.tolist()], [found[i] for i in twins], atol=1e-5)
    np.testing.assert_array_equal(logits(live.scorer, data, 0, EVERY[:3]), before)


@pytest.mark.parametrize(("damage", "match"), [
    ("half", r"delta 'delta-000001-000001': file 'tensors.safetensors' must have \d+ bytes, it has \d+"),
    ("missing", r"delta 'delta-000001-000001': cannot be read"),
    ("bit", r"file 'tensors.safetensors' is not as it was written, its checksum differs"),
    ("base", r"must be delta 1 of generation 1 \(\w+\), it is delta 1 of 1 \(\w+\)"),
    ("gap", r"delta 1 of generation 1 is missing, there are later ones"),
    ("shape", r"changes do not fit generation 1: weight 'embeddings.tables.8' must be"),
    ("nan", r"changes do not fit generation 1: item vectors must be finite"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_once_and_a_generation_asked_for(tmp_path: Path, damage: str, match: str) -> None:
    data = world()
    folder = tmp_path / "served"
    made = published(folder, data)
    live = Live(folder, build.served)
    before = live.scorer
    after = learned(made, 1)
    made_changes = changes(made, after, data, EVERY)
    if damage == "shape":
        made_changes = Changes({"embeddings.tables.8": torch.zeros(3, 3)})
    if damage == "nan":
        made_changes.items.flat[3, 2] = np.nan
    path = write_delta(folder, made_changes)
    tensors = path / "tensors.safetensors"
    if damage == "half":
        tensors.write_bytes(tensors.read_bytes()[:-100])
    elif damage == "missing":
        tensors.unlink()
    elif damage == "bit":
        content = bytearray(tensors.read_bytes())
        content[-1] ^= 1
        tensors.write_bytes(content)
    elif damage == "base":
        other = tmp_path / "other"
        published(other, data, seed=5)
        shutil.rmtree(path)
        shutil.copytree(write_delta(other, made_changes), path)
    elif damage == "gap":
        write_delta(folder, Changes())
        shutil.rmtree(path)
    with pytest.raises(GenerationError, match=match) as error:
        live.refresh()
    assert "\n" not in str(error.value)
    assert live.scorer is before
    assert not live.refresh()  # told once
    asked = wanted(folder)
    assert (asked["generation"], asked["sequence"]) == (1, 0)
    published(folder, data, seed=2)  # the answer
    assert live.refresh()
    assert live.scorer.generation.meta.number == 2
    assert wanted(folder) is None


def test_an_older_generation_is_refused_but_a_rollback_is_not(tmp_path: Path) -> None:
    data = world()
    models = [published(tmp_path, data, seed=n) for n in range(3)]
    live = Live(tmp_path, build.served)
    write_delta(tmp_path, Changes(removed=data.item_ids.gather([0]).to_numpy()), base=2)
    (tmp_path / "current.json").write_text(json.dumps({"generation": "gen-000002"}))
    with pytest.raises(GenerationError, match=r"current.json names generation 2, older than 3, which is in force"):
        live.refresh()
    assert not live.refresh()
    assert live.scorer.generation.meta.number == 3
    write_delta(tmp_path, Changes(removed=data.item_ids.gather([1]).to_numpy()))
    assert not live.refresh()  # it is a delta of what current.json does not name
    assert back(tmp_path, "3") == "gen-000003 is in force, gen-000002 was"
    assert back(tmp_path) == "gen-000002 is in force, gen-000003 was"
    assert live.refresh()
    assert (live.scorer.generation.meta.number, live.scorer.generation.sequence) == (2, 0)  # as it was exported
    expected = trained_logits(models[1], data, columns(data, 0), EVERY)[:, 0]
    np.testing.assert_allclose(logits(live.scorer, data, 0, EVERY), expected, atol=1e-5, rtol=1e-5)
    published(tmp_path, data, seed=9)
    assert live.refresh()
    assert live.scorer.generation.meta.number == 4
    assert sorted(p.name for p in tmp_path.glob("gen-*")) == ["gen-000002", "gen-000003", "gen-000004"]
    with pytest.raises(GenerationError, match=r"must be one of gen-000002, gen-000003, gen-000004; got 'gen-000001'"):
        back(tmp_path, "gen-000001")


def test_a_bad_delta_is_left_by_a_rollback_to_its_own_base(tmp_path: Path) -> None:
    data = world()
    made = published(tmp_path, data)
    write_delta(tmp_path, changes(made, learned(made, 1), data, EVERY))
    live = Live(tmp_path, build.served)
    assert live.scorer.generation.sequence == 1
    back(tmp_path, "1")
    assert live.refresh()
    assert live.scorer.generation.sequence == 0
    write_delta(tmp_path, Changes())
    assert not live.refresh()


def test_deltas_of_generations_that_are_gone_go_too(tmp_path: Path) -> None:
    data = world()
    for n in range(5):
        published(tmp_path, data, seed=n)
        write_delta(tmp_path, Changes())
    assert sorted(p.name for p in tmp_path.glob("delta-*")) == [f"delta-00000{n}-000001" for n in (3, 4, 5)]
    assert list(deltas(tmp_path, 5)) == [1]
    with pytest.raises(GenerationError, match="the next delta of generation 5 is 2; got 7"):
        write_delta(tmp_path, Changes(), sequence=7)
    with pytest.raises(GenerationError, match="generation 1 is not there"):
        write_delta(tmp_path, Changes(), base=1)


def test_a_crash_while_a_delta_is_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = world()
    published(tmp_path, data)
    before = {p.name for p in tmp_path.iterdir()}
    monkeypatch.setattr("prerank.serving.generation.sync", lambda path: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_delta(tmp_path, Changes())
    assert {p.name for p in tmp_path.iterdir()} == before


def test_answers_are_of_one_state_while_it_changes(tmp_path: Path) -> None:
    """Threads score while deltas flip; each answer is exactly one state's."""
    data = world()
    made = published(tmp_path, data)
    live = Live(tmp_path, build.served)
    given = [Request(user=data.user_ids[2], candidates=data.item_ids.to_list()[:50])]
    answers, stop = [], threading.Event()

    def ask() -> None:
        while not stop.is_set():
            scorer = live.scorer
            answers.append((scorer.generation.sequence, tuple(scorer.score(given)[0].logits["click"])))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(5):
        after = learned(made, n)
        write_delta(tmp_path, changes(made, after, data, EVERY))
        live.refresh()
        made = after
    stop.set()
    for thread in threads:
        thread.join()
    expected = {n: tuple(scorer_at(tmp_path, build.served, 1, n).score(given)[0].logits["click"]) for n in range(6)}
    assert {sequence for sequence, _ in answers} >= {0, 5} or len({s for s, _ in answers}) > 1
    assert all(said == expected[sequence] for sequence, said in answers)


def test_changes_leave_the_old_generation_as_it_was(tmp_path: Path) -> None:
    data = world()
    made = published(tmp_path, data, users=True)
    generation = open_current(tmp_path)
    kept = {k: v.clone() for k, v in generation.weights.items()}
    rows, users = np.array(generation.items.rows), np.array(generation.users["city"])
    newer = apply(generation, changes(made, learned(made, 1), data, EVERY))
    assert newer.user_vectors is None
    assert generation.user_vectors is not None
    assert all(torch.equal(v, generation.weights[k]) for k, v in kept.items())
    np.testing.assert_array_equal(generation.items.rows, rows)
    np.testing.assert_array_equal(generation.users["city"], users)


@pytest.mark.parametrize("name", ["inttower", "ranktower", "deepfm"])
def test_a_state_that_is_swapped_out_is_freed_at_once(tmp_path, name):
    """By counting references alone: a collector that has to look for it would look at everything, between two requests."""
    warm()
    data = world(items=30, users=20)
    published(tmp_path, data, name)
    live = Live(tmp_path, build.served)
    gc.collect()
    gc.disable()
    try:
        for seed in (1, 2):
            live.scorer.score([Request(user=data.user_ids[0], candidates=data.item_ids.to_list())])
            held = [weakref.ref(one) for one in (live.scorer, live.scorer.plain, live.scorer.generation)]
            published(tmp_path, data, name, seed=seed)
            assert live.refresh()
            assert [one() for one in held] == [None] * 3
    finally:
        gc.enable()
