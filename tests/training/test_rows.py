"""A row that has a new id holds nothing of the old one: weights, optimiser state, averages and memories are a fresh id's."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from prerank import build
from prerank.batch import Batch
from prerank.config import Growth, Model, Optimizer, Synergy, TermConfig
from prerank.data.growing import GrowingVocabulary
from prerank.schema import FIRST, UNKNOWN, Schema
from prerank.training.averaging import Average
from prerank.training.optimizer import Optimizer as Made
from prerank.training.rows import reset_rows
from prerank.training.step import train_step

SCHEMA = Schema.model_validate({
    "features": [{"name": "user", "side": "user"}, {"name": "liked", "side": "user", "kind": "sequence", "share": "item", "max_length": 2},
                 {"name": "item", "side": "item"}, {"name": "kind", "side": "item", "width": 3}],
    "user_id": "user", "item_id": "item", "objectives": ("click",), "width": 4})  # fmt: skip
SIZES = {"user": 9, "item": 12, "kind": 6}
CTS = Synergy.model_validate({"cts": {"negatives": True}})
OPTIMIZERS = {
    "adam": Optimizer(lr=0.05, l2=1e-3), "adagrad": Optimizer(name="adagrad", lr=0.1),
    "ftrl": Optimizer(name="ftrl", lr=0.2, l1=0.01, l2=0.1),
    "rowwise": Optimizer.model_validate({"groups": [{"match": "*tables*", "rowwise": True, "lr": 0.1}]}),
}  # fmt: skip
TOWER = Model.model_validate({"name": "dssm", "hidden": [6], "id_head": 3})
RANKER = Model.model_validate({"name": "deepfm", "hidden": [6], "id_head": 3})


def batch(rng: np.random.Generator, items: list[int]) -> Batch:
    """Rows of users 3.. and these items."""
    n = 40
    draw = lambda low, high, *size: torch.from_numpy(rng.integers(low, high, size)).int()  # noqa: E731
    ids = torch.from_numpy(rng.choice(items, 10)).int()
    return Batch({"user": draw(FIRST, 9, 8), "liked": torch.from_numpy(rng.choice(items, (8, 2))).int()},
                 {"item": ids, "kind": draw(UNKNOWN, 6, 10)}, draw(0, 8, n).long(), draw(0, 10, n, 1).long(),
                 torch.from_numpy(rng.integers(0, 2, (n, 1, 1))).float(), torch.ones(n, 1, dtype=torch.bool))  # fmt: skip


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", [TOWER, RANKER], ids=["tower", "ranker"])
def test_a_used_row_becomes_a_fresh_one(optimizer: str, model: Model) -> None:
    """Row 5 is trained, 6 never is; after the reset nothing tells them apart, and no other row has moved."""
    torch.manual_seed(0)
    made = build.model(model, SCHEMA, SIZES, CTS if model is TOWER else None)
    objective = build.objective([TermConfig(loss="logloss")], SCHEMA)
    settings = OPTIMIZERS[optimizer]
    steps = Made(made, settings, {v: torch.ones(n) for v, n in SIZES.items()})
    average = Average(made, 0.9, frozenset(steps.rowwise.parameters if steps.rowwise else ()))
    rng = np.random.default_rng(0)
    for _ in range(5):
        train_step(made, objective, steps, batch(rng, [UNKNOWN, 3, 4, 5]), observe=getattr(made, "observe", None))
        average.update()
    before = tensors(made, steps, average)
    assert any(differ(rows[5], rows[6]) for rows in of_items(made, before).values())
    reset_rows(made, steps, average, {"item": np.array([5, 6], np.int32), "user": np.array([], np.int32)})
    after = tensors(made, steps, average)
    for name, rows in of_items(made, after).items():
        assert not differ(rows[5], rows[6]), name
        assert not differ(*(np.delete(x[name], [5, 6], 0) for x in (of_items(made, before), of_items(made, after)))), name
        weights = name.startswith(("model/", "average/"))
        if weights:
            assert not differ(rows[5], rows[UNKNOWN]), name
        elif not (settings.name == "ftrl" and name.endswith("/z")):
            assert not rows[5].any(), name
    if settings.name == "ftrl":  # z is where the formula begins from these weights, not 0
        for name, rows in of_items(made, after).items():
            if name.endswith("/z"):
                w = of_items(made, after)["model/" + name.removeprefix("optimizer/").removesuffix("/z")][5]
                np.testing.assert_allclose(rows[5], -w * (1 / 0.2 + 0.1) - np.sign(w) * 0.01, rtol=1e-5)
    untouched = {k: v for k, v in before.items() if k not in held(made)}
    assert all(torch.equal(v, after[k]) for k, v in untouched.items())
    assert len(of_items(made, after)) >= 6


def test_memories_forget_the_id() -> None:
    torch.manual_seed(0)
    made = build.model(TOWER, SCHEMA, SIZES, CTS)
    steps = Made(made, Optimizer(), {v: torch.ones(n) for v, n in SIZES.items()})
    train_step(made, build.objective([TermConfig(loss="logloss")], SCHEMA), steps, batch(np.random.default_rng(0), [3, 5]),
               observe=made.observe)  # fmt: skip
    caches = [c for f in made.embeddings.attached.values() for c in f.caches]
    seen = [int(c.store.counts[5]) for c in caches]
    users = [c.store.counts.clone() for c in caches]
    assert sum(seen) > 0
    reset_rows(made, None, None, {"item": np.array([5])})
    of_item = [c for name, f in made.embeddings.attached.items() if name.endswith("item") for c in f.caches]
    for cache in of_item:
        assert int(cache.store.counts[5]) == int(cache.store.last[5]) == 0
        assert not cache.store.vectors[5].any()
        assert int(cache.store.counts[3]) > 0
    for cache, was in zip(caches, users, strict=True):
        if not any(cache is c for c in of_item):
            assert torch.equal(cache.store.counts, was)


def test_an_id_that_gets_a_used_row_starts_where_one_with_a_fresh_row_does() -> None:
    """66 is learned and expires; of the two newcomers one gets its row, the other a row that nobody had."""
    torch.manual_seed(1)
    made = build.model(TOWER, SCHEMA, SIZES, CTS)
    steps = Made(made, OPTIMIZERS["adam"], {v: torch.ones(n) for v, n in SIZES.items()})
    average = Average(made, 0.9, frozenset())
    objective = build.objective([TermConfig(loss="logloss")], SCHEMA)
    vocabulary = GrowingVocabulary(pl.Series([10, 11]), Growth(capacity=7, admit_after=1, expire_after="10s"))
    rows = vocabulary.assign([10, 11, 66], 1_000).tolist()
    reset_rows(made, steps, average, {"item": vocabulary.changes().admitted})
    for k in range(3):
        train_step(made, objective, steps, batch(np.random.default_rng(k), rows), observe=made.observe)
        average.update()
    vocabulary.assign([10, 11], 10_000)
    vocabulary.assign([10, 11], 12_000)
    assert vocabulary.changes().released.tolist() == [rows[2]]
    fresh, used = vocabulary.assign([77, 78], 12_001).tolist()
    assert used == rows[2] != fresh
    found = of_items(made, tensors(made, steps, average))
    assert all(differ(x[used], x[fresh]) for name, x in found.items() if "embeddings.tables" in name)
    reset_rows(made, steps, average, {"item": vocabulary.changes().admitted})
    found = of_items(made, tensors(made, steps, average))
    assert found
    assert not [name for name, x in found.items() if differ(x[used], x[fresh])]


def test_histories_are_refused() -> None:
    made = build.model(Model.model_validate({"name": "dssm", "hidden": [6], "id_head": 3, "id_history": True}), SCHEMA, SIZES)
    with pytest.raises(ValueError, match="id_history"):
        reset_rows(made, None, None, {"item": np.array([5])})


def tensors(model: torch.nn.Module, optimizer: Made, average: Average) -> dict[str, torch.Tensor]:
    """Everything that there is, by part and name, copied."""
    parts = {"model": model.state_dict(), "optimizer": optimizer.tensors(), "average": average.tensors()}
    return {f"{part}/{k}": v.clone() for part, found in parts.items() for k, v in found.items()}


def held(model: torch.nn.Module) -> set[str]:
    """Names in `tensors` of what holds rows of items, found by shape: independent of what the model says of itself."""
    sizes = [SIZES["item"], SIZES["item"] + SIZES["user"], SIZES["item"] + SIZES["kind"], sum(SIZES.values())]
    found = {name for name, v in model.state_dict().items() if v.dim() and v.shape[0] in sizes}
    return {f"{part}/{name}{rest}" for part in ("model", "average", "optimizer") for name in found
            for rest in ("", "/exp_avg", "/exp_avg_sq", "/sum", "/z", "/n", "/rowwise")}  # fmt: skip


def of_items(model: torch.nn.Module, found: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The rows of items in each tensor that has some."""
    wanted, rows = held(model), {}
    for name, value in found.items():
        if name in wanted:
            first = item_offset(model, name)
            rows[name] = value[first : first + SIZES["item"]].float().numpy()
    return rows


def item_offset(model: torch.nn.Module, name: str) -> int:
    """Where the items begin in a fused table."""
    if ".tables." not in name and not name.split("/")[1].startswith("tables."):
        return 0
    owner = name.split("/")[1].split(".tables.")[0]
    return model.get_submodule(owner).offset["item"]


def differ(a: np.ndarray, b: np.ndarray) -> bool:
    return not np.array_equal(a, b)
