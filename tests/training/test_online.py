"""One pass in time: nothing is predicted with what came later, late labels wait, and a killed run goes on as if it had not been."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from prerank import build
from prerank.batch import Batch, Output
from prerank.config import Config, ConfigError, Data, Model, TermConfig, Training, checked
from prerank.config.synergy import Synergy
from prerank.data import Dataset, prepare
from prerank.metrics import auc
from prerank.training import Interrupted
from prerank.training.learner import Pair
from prerank.training.online import Order, State, id_vocabularies, in_time, stream

N = 3000


def settings(**change: Any) -> Training:
    groups = [{"match": "*ids*", "lr": 0.1, "rowwise": True}]
    given = {"batch_size": 64, "optimizer": {"lr": 0.003, "groups": groups}, "average": 0.9, "threads": 1, "checkpoint_seconds": 1e6}
    return Training.model_validate({**given, **change})


def log(folder: Path, labels: np.ndarray, *, kind: str = "time", shuffled: bool = False, items: np.ndarray | None = None) -> Dataset:
    folder.mkdir(exist_ok=True)
    random, n = np.random.default_rng(5), len(labels)
    users, drawn = random.integers(0, 50, n), random.integers(0, 20, n)
    given = drawn if items is None else items
    frame = pl.DataFrame({"user": users, "item": given, "ts": 1_650_000_000_000 + 1000 * np.arange(n), "y": labels})
    (frame.sample(fraction=1, shuffle=True, seed=1) if shuffled else frame).write_parquet(folder / "log.parquet")
    asof = [{"name": n, "by": n[:-5], "label": "y"} for n in ("user_mean", "item_mean")]
    features = [{"name": n, "side": n[:4], "kind": "numeric"} for n in ("user_mean", "item_mean")]
    return prepare(Data.model_validate(
        {"log": str(folder / "log.parquet"), "user_id": "user", "item_id": "item", "time": "ts", "labels": {"y": {"column": "y"}},
         "width": 4, "asof": asof, "features": features, "split": {"kind": kind, "validation": 0.1, "test": 0.3},
         "cache": str(folder / "cache")}
    ))  # fmt: skip


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    random = np.random.default_rng(5)
    users, items = random.integers(0, 50, N), random.integers(0, 20, N)  # the log's own
    taste, worth = np.random.default_rng(6).normal(size=50), np.random.default_rng(7).normal(size=20)
    return (np.random.default_rng(8).random(N) < 1 / (1 + np.exp(-2 * (taste[users] + worth[items])))).astype(np.int64)


@pytest.fixture(scope="module")
def dataset(labels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return log(tmp_path_factory.mktemp("log"), labels)


def made(dataset: Dataset) -> torch.nn.Module:
    torch.manual_seed(0)
    return build.model(Model.model_validate({"name": "dssm", "hidden": [8], "width": 4, "norm": False, "id_head": 2, "similarity": "dot"}),
                       dataset.schema, dataset.sizes)  # fmt: skip


def run(dataset: Dataset, folder: Path, *, training: Training | None = None, model: Any = None, **options: Any) -> State:
    folder.mkdir(exist_ok=True)
    objective = build.objective([TermConfig(loss="logloss")], dataset.schema)
    return stream(model or made(dataset), objective, dataset, in_time(dataset), training or settings(), folder, **options)


def test_it_learns_while_it_goes(dataset: Dataset, tmp_path: Path) -> None:
    state, order = run(dataset, tmp_path), in_time(dataset)
    y = dataset.labels[order.rows, 0] > 0
    assert np.isfinite(state.logits).all()
    assert np.isfinite(state.frozen).all()
    assert auc(state.logits[order.test :, 0], y[order.test :]) > 0.75
    assert auc(state.frozen[:, 0], y[order.test :]) > 0.75


@pytest.mark.parametrize(("average", "rehearsal"), [(None, 0), (0.9, 0), (0.9, 2)])
def test_a_flipped_label_moves_no_score_of_its_batch_or_before(
    labels: np.ndarray, tmp_path: Path, average: float | None, rehearsal: int
) -> None:
    """Bit for bit at any rate of learning, in both protocols; later batches do see it."""
    training = settings(average=average, rehearsal=rehearsal)
    plain = run(log(tmp_path / "plain", labels), tmp_path / "a", training=training)
    assert in_time(log(tmp_path / "plain", labels)).test == 2100
    for row in (100, 2099, 2500):  # the last row before the split is known to the frozen protocol, too
        changed = labels.copy()
        changed[row] = 1 - changed[row]
        other = run(log(tmp_path / str(row), changed), tmp_path / f"b{row}", training=training)
        moved = np.flatnonzero((plain.logits != other.logits).any(axis=1))
        assert moved.min() > row
        assert (plain.frozen != other.frozen).any() == (row < 2100)


@pytest.mark.parametrize("rehearsal", [0, 2])
def test_at_rate_0_only_running_statistics_carry_labels_on(labels: np.ndarray, tmp_path: Path, rehearsal: int) -> None:
    changed = labels.copy()
    changed[2500] = 1 - changed[2500]
    still = settings(optimizer={"lr": 1e-30}, average=None, rehearsal=rehearsal)
    plain, other = (run(log(tmp_path / n, y), tmp_path / f"run-{n}", training=still) for n, y in (("a", labels), ("b", changed)))
    moved = np.flatnonzero((plain.logits != other.logits).any(axis=1))
    assert moved.min() > 2500  # seen by later rows, of the same batch too
    np.testing.assert_array_equal(plain.frozen, other.frozen)


@pytest.mark.parametrize("rehearsal", [0, 1])
def test_labels_drawn_by_lot_are_not_found(tmp_path: Path, rehearsal: int) -> None:
    """AUC .50 +- .02 in both protocols: of 12,000 rows that is four deviations."""
    dataset = log(tmp_path / "lot", np.random.default_rng(0).integers(0, 2, 40_000))
    order, state = in_time(dataset), run(dataset, tmp_path / "run", training=settings(batch_size=256, rehearsal=rehearsal))
    y = dataset.labels[order.rows, 0] > 0
    assert len(y) - order.test == 12_000
    assert abs(auc(state.frozen[:, 0], y[order.test :]) - 0.5) < 0.02
    assert abs(auc(state.logits[order.test :, 0], y[order.test :]) - 0.5) < 0.02
    assert abs(auc(state.logits[:, 0], y) - 0.5) < 0.02


def test_what_only_the_future_tells_is_not_found(tmp_path: Path) -> None:
    """Every item comes twice with one label, drawn by lot: its first row is told by its second alone, which lies later.

    Ids, running statistics and memories could all carry it back; the second rows show that they do carry it forward."""
    n = 8000
    lot, items = np.random.default_rng(0).integers(0, 2, n), np.random.default_rng(1).permutation(n)
    dataset = log(tmp_path / "log", np.concatenate([lot, lot]), shuffled=True, items=np.concatenate([items, items]))
    torch.manual_seed(0)
    told = {"inputs": "vector_count_age"}
    synergy = Synergy.model_validate({"cts": told, "cms": {"ranker": {"name": "mlp", "hidden": [8]}, **told}})
    model = build.model(Model.model_validate({"name": "dssm", "hidden": [8], "width": 4, "norm": False, "id_head": 2, "similarity": "dot"}),
                        dataset.schema, dataset.sizes, synergy)  # fmt: skip
    ranker = build.model(Model.model_validate({"name": "mlp", "hidden": [8]}), dataset.schema, dataset.sizes)
    state, order = run(dataset, tmp_path, model=model, ranker=ranker, training=settings(batch_size=256)), in_time(dataset)
    y = dataset.labels[order.rows, 0] > 0
    assert abs(auc(state.logits[:n, 0], y[:n]) - 0.5) < 0.03  # 8,000 rows: four deviations
    assert auc(state.logits[n:, 0], y[n:]) > 0.8  # memories of one sighting each


def test_late_labels_wait(dataset: Dataset, tmp_path: Path) -> None:
    """A batch is learned from when the next row to be predicted comes after its last label: here 300 rows, hence 5 batches, later."""
    behind = []
    run(dataset, tmp_path, delay=300_000, told=lambda state: behind.append(state.step - state.learned))
    assert behind[:4] == [1, 2, 3, 4]
    assert set(behind[8:-1]) <= {4, 5}
    prompt: list[int] = []
    run(dataset, tmp_path / "prompt", told=lambda state: prompt.append(state.step - state.learned))
    assert set(prompt) == {0}


@pytest.mark.parametrize("rehearsal", [0, 2])
def test_resuming_changes_nothing(dataset: Dataset, tmp_path: Path, rehearsal: int) -> None:
    import os
    import signal

    training = settings(rehearsal=rehearsal)
    whole = run(dataset, tmp_path / "whole", delay=300_000, training=training)

    def stop(state: State) -> None:
        if state.step == 38:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="stopped at row 2,420 of 3,000; continue with --resume"):
        run(dataset, tmp_path / "cut", delay=300_000, told=stop, training=training)
    again = run(dataset, tmp_path / "cut", delay=300_000, resume=True, training=training)
    np.testing.assert_array_equal(again.logits, whole.logits)
    np.testing.assert_array_equal(again.frozen, whole.frozen)


def test_batches_that_were_learned_are_rehearsed_as_they_were(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four after each new one, older than it, whose labels are known; they are learned from, and no row is predicted twice."""
    learned: list[tuple[int, Batch]] = []
    counts: list[int] = []
    step = Pair.step

    def noted(pair: Pair, batch: Batch, number: int) -> float:
        learned.append((number, batch))
        return step(pair, batch, number)

    monkeypatch.setattr(Pair, "step", noted)
    state = run(dataset, tmp_path, training=settings(rehearsal=4), delay=300_000, told=lambda state: counts.append(len(learned)))
    order, numbers = in_time(dataset), [number for number, _ in learned]
    ends = order.ends(64)
    for k, n in enumerate(counts[:-1]):
        assert all(int(batch.ts.max()) + 300_000 <= order.ts[ends[k]] for _, batch in learned[:n])  # type: ignore[union-attr]
    new, past = numbers[1::5], [numbers[k : k + 4] for k in range(2, len(numbers), 5)]
    assert (numbers[0], new) == (1, list(range(2, state.learned + 1)))
    assert all(max(drawn) < number for number, drawn in zip(new, past, strict=True))
    drawn = {number for numbers in past for number in numbers}
    assert min(drawn) < 33 < max(drawn)  # of both sides of the split
    first = dict(reversed(learned))
    for number, batch in learned:
        assert first[number].labels.equal(batch.labels)
        assert all(first[number].item[name].equal(column) for name, column in batch.item.items())
        assert (batch.ts[-1] == order.ts[ends[number - 1] - 1]).all()  # type: ignore[index]
    assert (state.step, state.rows) == (48, N)


def test_a_model_without_vectors_of_ids_says_so(dataset: Dataset) -> None:
    assert id_vocabularies(made(dataset), dataset.schema) == ["user", "item"]
    without = {"name": "dssm", "hidden": [8], "width": 4, "norm": False}
    assert id_vocabularies(build.model(Model.model_validate(without), dataset.schema, dataset.sizes), dataset.schema) == []


def test_memories_are_not_rehearsed(dataset: Dataset, tmp_path: Path) -> None:
    model, training = made(dataset), settings(rehearsal=1)
    ranker = build.model(Model.model_validate({"name": "mlp", "hidden": [8]}), dataset.schema, dataset.sizes)
    with pytest.raises(ConfigError, match=r"training\.rehearsal: a ranking model beside it does not take it: .*; got 1$"):
        run(dataset, tmp_path, model=model, ranker=ranker, training=training)
    model.memories = (object(),)  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"training\.rehearsal: a model with synergy\.cts or cms does not take it: .*; got 1$"):
        run(dataset, tmp_path, model=model, training=training)


def test_memories_are_written_after_the_step_and_only_of_labels_that_are_known(dataset: Dataset, tmp_path: Path) -> None:
    model = made(dataset)
    seen: list[int] = []
    steps: list[int] = []

    def observe(batch: Batch, output: Output, hidden: object) -> None:
        assert output.logits.shape[0] == batch.rows
        assert hidden is None
        seen.append(int(batch.ts.max()))  # type: ignore[union-attr]

    model.memories, model.observe = (object(),), observe  # type: ignore[assignment]
    run(dataset, tmp_path, model=model, delay=300_000, told=lambda state: steps.append(len(seen)), training=settings(average=None))
    order = in_time(dataset)
    for k, written in enumerate(steps[:-1]):
        nexts = order.ts[order.ends(64)[k]]
        assert all(ts + 300_000 <= nexts for ts in seen[:written])


def test_a_ranking_model_beside_it_is_read_before_it_learns(dataset: Dataset, tmp_path: Path) -> None:
    model, hiddens = made(dataset), []
    model.memories, model.observe = (object(),), lambda batch, output, hidden: hiddens.append(hidden)  # type: ignore[assignment]
    torch.manual_seed(0)
    ranker = build.model(Model.model_validate({"name": "mlp", "hidden": [8]}), dataset.schema, dataset.sizes)
    untouched = ranker.eval()(next(iter_batches(dataset))).hidden.detach().clone()
    run(dataset, tmp_path, model=model, ranker=ranker, training=settings(average=None))
    assert len(hiddens) == len(in_time(dataset).ends(64)) == 33 + 15
    torch.testing.assert_close(hiddens[0], untouched)


def test_batches_end_at_the_split() -> None:
    moments = np.arange(10)
    for test, ends in ((0, [4, 8, 10]), (3, [3, 7, 10]), (4, [4, 8, 10]), (6, [4, 6, 10]), (10, [4, 8, 10])):
        assert Order(moments, moments, test).ends(4).tolist() == ends


def iter_batches(dataset: Dataset) -> Any:
    from prerank.data import Loader

    return Loader(dataset, in_time(dataset).rows, 64, shuffle="none").epoch(0)


def test_time_decides_the_order(labels: np.ndarray, tmp_path: Path) -> None:
    shuffled = log(tmp_path / "shuffled", labels, shuffled=True)
    order = in_time(shuffled)
    assert (np.diff(order.ts) >= 0).all()
    with pytest.raises(ConfigError, match=r"log: time runs backwards [0-9,]+ times; sort the log, or let it be sorted"):
        in_time(shuffled, sort=False)
    with pytest.raises(ConfigError, match=r"rows to test on lie before rows to learn from; a pass in order of time needs split\.kind time"):
        in_time(log(tmp_path / "random", labels, kind="random"))


def test_rowwise_groups_want_a_rate() -> None:
    with pytest.raises(ConfigError, match="rowwise: needs lr, and takes neither l2 nor count_power; group"):
        checked(Config, {"training": {"optimizer": {"groups": [{"match": "*", "rowwise": True}]}}}, "config")
