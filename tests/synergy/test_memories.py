"""CTS and CMS: the same stream through model and plain numpy, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from prerank import build
from prerank.batch import Stage
from prerank.config import Config, ConfigError, Model, Synergy, parse
from prerank.schema import Feature
from tests.conftest import SIZES, small_batch, small_schema
from tests.store.oracle import Oracle
from tests.synergy.oracle import field, write
from tests.synergy.world import hidden_of, synergised, timed

INPUTS = ["vector", "vector_count_age", "count_age"]
IDS = {"user": "user_id", "item": "item_id"}
OTHER = {"user": "item", "item": "user"}


def stream(objectives: int = 1):
    """Batches of lists with padding, unknown ids among them."""
    for seed in range(8):
        batch = timed(small_batch(seed, lists=9, candidates=4, objectives=objectives), 10**10 * (seed + 1))
        batch.user["user_id"][0] = batch.item["item_id"][1] = 2
        yield batch


def check_field(model, kind, side, caches, inputs, columns):
    module = model.embeddings.attached[f"{kind} of {side}"]
    ids = columns[IDS[side]]
    weight, bias = (p.detach().double().numpy() for p in (module.project.weight, module.project.bias))
    clock = [max(c.last.values(), default=0) for c in caches]
    expected = [field(caches, clock, int(i), weight, bias, inputs) for i in ids]
    np.testing.assert_allclose(module(ids).detach().numpy(), expected, atol=3e-6)


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize(("mode", "negatives"), [("ema", False), ("ema", True), ("mean", True)])
@pytest.mark.parametrize("name", ["dssm-cosine-id-head", "inttower"])
def test_cts_against_plain_numpy(name, mode, negatives, inputs):
    model = synergised(name, {"cts": {"mode": mode, "negatives": negatives, "inputs": inputs}}).train()
    widths = {"user": 8, "item": 8} if name != "inttower" else {"user": 12, "item": 12}  # H * K of the last level, no id head
    caches = {s: [Oracle(widths[s], 0.8 if mode == "ema" else None) for _ in range(1 + negatives)] for s in IDS}
    for batch in stream():
        for side in IDS:
            check_field(model, "cts", side, caches[side], inputs, getattr(batch, side))
        output = model(batch)
        model.observe(batch, output)
        liked = batch.labels[:, :, 0].numpy() > 0
        users = output.user.groups[0].detach().numpy()[:, -(1 if name != "inttower" else 2) :].reshape(len(output.user.groups[0]), -1)
        items = output.item.groups[0].detach().numpy().reshape(len(output.item.groups[0]), -1)
        said = {"user": items[batch.item_index], "item": np.repeat(users[batch.user_index][:, None], 4, axis=1)}
        for side, (first, *rest) in caches.items():
            write(first, batch, side, IDS[side], said[side], liked)
            for second in rest:
                write(second, batch, side, IDS[side], said[side], ~liked)
    for memory in model.memories:
        for cache, oracle in zip([memory.positive, memory.negative], caches[memory.side], strict=False):
            got = cache.read(torch.arange(SIZES[IDS[memory.side]]))
            np.testing.assert_allclose(got.vectors.numpy(), [oracle.read(i) for i in range(len(got.counts))], atol=1e-6)
            assert got.counts.tolist() == [oracle.counts.get(i, 0) for i in range(len(got.counts))]
            assert not got.counts[:3].any()  # nobody's rows are nobody's memory


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("mode", ["ema", "mean"])
def test_cms_against_plain_numpy(mode, inputs):
    model = synergised("dssm", {"cms": {"mode": mode, "inputs": inputs, "ranker": {"name": "mlp", "hidden": [7]}}}).train()
    caches = {s: Oracle(7, 0.8 if mode == "ema" else None) for s in IDS}
    for n, batch in enumerate(stream()):
        for side in IDS:
            check_field(model, "cms", side, [caches[side]], inputs, getattr(batch, side))
        hidden = hidden_of(model, batch, n)
        model.observe(batch, model(batch), hidden)
        for side, cache in caches.items():
            write(cache, batch, side, IDS[side], hidden.numpy(), np.ones(hidden.shape[:2], bool))  # every row, whatever its label
    for memory in model.memories:
        got = memory.cache.read(torch.arange(SIZES[IDS[memory.side]]))
        np.testing.assert_allclose(got.vectors.numpy(), [caches[memory.side].read(i) for i in range(len(got.counts))], atol=1e-6)


def test_candidates_that_were_not_shown_teach_nothing():
    model, batch = synergised("dssm", {"cts": {"negatives": True}}), timed(small_batch(lists=9, candidates=4))
    model.observe(replace(batch, stage=torch.full(batch.where.shape, int(Stage.RECALL), dtype=torch.int8)), model(batch))
    assert not any(len(m.positive.store) or len(m.negative.store) for m in model.memories)


def test_one_side_alone():
    model = synergised("dssm", {"cts": {"sides": ["item"]}})
    assert [m.side for m in model.memories] == ["item"]
    held = ("clock", "store.vectors", "store.counts", "store.last")
    assert model.memory_names == {f"embeddings.attached.cts of item.caches.0.{n}" for n in held}


def test_hidden_vectors_from_a_column():
    schema = small_schema()
    told = Feature(name="h", side="context", kind="vector", dim=5, field=False)
    schema = schema.model_copy(update={"features": (*schema.features, told)})
    model = build.model(Model(name="dssm", hidden=[8]), schema, SIZES, Synergy.model_validate({"cms": {"column": "h"}}))
    assert not model.needs_hidden
    batch = timed(small_batch())
    h = torch.randn(10, 5)
    h[3] = 0  # missing
    batch.user["h"] = h
    model.observe(batch, model(batch))
    told = model.memories[0].cache.read(batch.user["user_id"])
    used = torch.zeros(10, dtype=torch.bool).index_fill_(0, batch.user_index, True)
    used[3] = False
    assert torch.equal(told.counts > 0, used)
    torch.testing.assert_close(told.vectors[used], h[used])


def test_another_width_and_no_vectors_are_refused():
    model, batch = synergised("dssm", {"cms": {"ranker": "mlp"}}), small_batch()
    output = model(batch)
    with pytest.raises(ValueError, match="cms: needs the ranking model's hidden vectors of the batch; got none"):
        model.observe(batch, output)
    with pytest.raises(ValueError, match="must be 128 wide; got 3"):
        model.observe(batch, output, torch.randn(24, 1, 3))


@pytest.mark.parametrize(("name", "synergy", "why"), [
    ("mf", {"cts": {}}, "model 'mf': synergy.cts, synergy.cms: need towers that read fields"),
    ("dssm", {"cms": {"ranker": "lr"}}, "synergy.cms: ranker 'lr' has no hidden layer"),
    ("dssm", {"cms": {"ranker": "dcnv3"}}, "synergy.cms: unknown ranker 'dcnv3'; did you mean 'dcnv2'?"),
    ("dssm", {"cms": {"column": "age"}}, "synergy.cms.column: 'age' must be a feature of kind vector"),
])  # fmt: skip
def test_what_cannot_be_built_is_told(name, synergy, why):
    with pytest.raises(ConfigError) as error:
        synergised(name, synergy)
    assert why in str(error.value)


def test_a_ranker_takes_no_synergy():
    with pytest.raises(ConfigError, match="synergy: belongs to two towers"):
        build.model(Model(name="dcnv2"), small_schema(), SIZES, Synergy.model_validate({"cas": {}}))


@pytest.mark.parametrize(("synergy", "why"), [
    ({"cts": {"decay": 1.0}}, "synergy.cts.decay: Input should be less than 1"),
    ({"cts": {"decay": 0}}, "synergy.cts.decay: Input should be greater than 0"),
    ({"cms": {}}, "synergy.cms: needs exactly one of ranker, column"),
    ({"cas": {"sides": ["user", "user"]}}, "synergy.cas.sides: must be different"),
    ({"cas": {"cycle": 1}}, "unknown key 'synergy.cas.cycle'; did you mean 'cycles'?"),
])  # fmt: skip
def test_settings_that_mean_nothing(synergy, why):
    with pytest.raises(ConfigError) as error:
        parse({"synergy": synergy})
    assert why in str(error.value)


def test_a_config_without_synergy_is_written_as_before():
    assert "synergy" not in parse({"name": "x"}).model_dump(exclude_unset=True)
    assert Config().synergy is None
