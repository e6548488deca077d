from __future__ import annotations

import pytest
import torch

from prerank.rankers.cold import cold
from prerank.rankers.cutting import inherit, observing
from prerank.rankers.fscd import fscd
from prerank.rankers.mlp import mlp
from tests.conftest import SIZES, small_batch, small_schema

KEEP = ["history", "hour", "item_id", "picture"]


def trained(make, **options):
    """A model that is no longer as it was born, BatchNorm's statistics included."""
    torch.manual_seed(0)
    model = make(small_schema(), SIZES, hidden=(8, 5), id_head=3, embedding_std=0.5, **options)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    for seed in range(3):
        model(small_batch(seed))
    return model.eval()


def constant_gates(whole, keep: list[str]) -> None:
    """The gates of fields that go are the same for every row."""
    gone = [i for i, name in enumerate(whole.network.names) if name not in keep]
    if hasattr(whole.network.gate, "excite"):
        whole.network.gate.excite.weight.data[gone] = 0.0


@pytest.mark.parametrize("make", [cold, fscd])
def test_the_small_model_says_the_same_where_what_is_gone_is_constant(make) -> None:
    whole = trained(make)
    constant_gates(whole, KEEP)
    batch = small_batch(lists=40)
    gone = {"user_id": 5, "age": 4, "price": 6}
    for side in (batch.user, batch.item):
        side.update({n: torch.full_like(side[n], value) for n, value in gone.items() if n in side})
    batch.item["genres"] = torch.tensor([[3, 4, 0]], dtype=torch.int32).expand(15, 3)
    with torch.no_grad():
        with observing(whole) as seen:
            before = whole(batch)
        small = make(small_schema(), SIZES, hidden=(8, 5), id_head=3, keep=KEEP).eval()
        inherit(small, whole, seen)
        after = small(batch)
    assert seen.rows == 40
    torch.testing.assert_close(after.logits, before.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after.hidden, before.hidden, atol=1e-5, rtol=1e-5)


def test_crosses_are_inherited_too() -> None:
    whole = trained(cold, cross=[["age", "price"], ["hour", "item_id"]])
    keep = [*whole.network.names[:8], "hour*item_id"]
    constant_gates(whole, keep)
    batch = small_batch(lists=30)
    batch.user["age"] = torch.full_like(batch.user["age"], 4)
    batch.item["price"] = torch.full_like(batch.item["price"], 3)
    with torch.no_grad():
        with observing(whole) as seen:
            before = whole(batch).logits
        small = cold(small_schema(), SIZES, hidden=(8, 5), id_head=3, cross=[["age", "price"], ["hour", "item_id"]], keep=keep).eval()
        inherit(small, whole, seen)
        torch.testing.assert_close(small(batch).logits, before, atol=1e-5, rtol=1e-5)


def test_observed_means_are_those_of_all_pairs() -> None:
    whole = trained(cold)
    batches = [small_batch(seed, lists=n) for seed, n in enumerate((10, 3, 20))]
    with torch.no_grad(), observing(whole) as seen:
        for batch in batches:
            whole(batch)
    fields = torch.cat([
        torch.cat([whole.embeddings("user", b.user)[b.user_index], whole.embeddings("item", b.item)[b.item_index[:, 0]]], dim=1)
        for b in batches
    ])  # fmt: skip
    gates = whole.network.gate(fields)
    torch.testing.assert_close(seen.gates.float(), gates.mean(dim=0))
    torch.testing.assert_close(seen.fields.float(), fields.mean(dim=0))
    torch.testing.assert_close(seen.weighed.float(), (fields * gates.unsqueeze(2)).mean(dim=0))
    assert not whole.network._forward_pre_hooks


def test_a_model_without_a_gate_is_refused() -> None:
    for model in (mlp(small_schema(), SIZES), fscd(small_schema(), SIZES, keep=["age", "price"])):
        with pytest.raises(ValueError, match="must weigh its fields by a gate, as cold does"), observing(model):
            pass
