from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prerank.layers import Embeddings, IdTable, IdVectors
from prerank.layers.embedding import AttentionPooling, masked_mean
from prerank.schema import FIRST, MISSING, UNKNOWN, Feature, Schema
from tests.conftest import SIZES, small_batch, small_schema


def test_fields_come_in_the_schemas_order_and_each_is_what_its_kind_says() -> None:
    schema = small_schema()
    layer, batch = Embeddings(schema, SIZES), small_batch()
    fields = layer("item", batch.item)
    assert fields.shape == (15, 4, 6)
    table = layer.tables["6"]
    torch.testing.assert_close(fields[:, 0], table[batch.item["item_id"].long() + layer.offset["item_id"]])
    for row in range(15):
        values = [v for v in batch.item["genres"][row].tolist() if v]
        mean = sum((table[layer.offset["genres"] + v] for v in values), torch.zeros(6)) / max(len(values), 1)
        torch.testing.assert_close(fields[row, 1], mean)
    dense = layer.dense["picture"]
    torch.testing.assert_close(fields[:, 3], batch.item["picture"] @ dense.weight.T + dense.bias)


def test_a_shared_feature_reads_its_owners_rows_on_the_other_side() -> None:
    layer = Embeddings(small_schema(), SIZES)
    assert layer.offset["history"] == layer.offset["item_id"]


def test_another_width_is_brought_to_d() -> None:
    layer = Embeddings(small_schema(), SIZES)
    assert layer.tables["4"].shape == (SIZES["age"], 4)
    assert layer.resize["age"].weight.shape == (6, 4)


def test_raw_numbers_are_themselves() -> None:
    schema = Schema(features=(Feature(name="x", side="user", kind="numeric", encoding="raw"),), user_id="u", item_id="i", width=3)
    layer = Embeddings(schema, {"u": 4, "i": 4})
    assert layer("user", {"x": torch.tensor([2.5, -1.0])}).tolist() == [[[2.5, 0.0, 0.0]], [[-1.0, 0.0, 0.0]]]
    assert list(layer.parameters()) == []


def test_sparse_and_dense_gradients_agree() -> None:
    schema, batch = small_schema(), small_batch()
    gradients = []
    for sparse in (frozenset(), frozenset({"tables.6"})):
        torch.manual_seed(0)
        layer = Embeddings(schema, SIZES)
        layer.sparse = sparse
        layer("item", batch.item).square().sum().backward()
        gradients.append(layer.tables["6"].grad)
    assert gradients[1].is_sparse
    torch.testing.assert_close(gradients[1].to_dense(), gradients[0])


def test_rows_that_training_never_saw_become_the_weighted_mean() -> None:
    torch.manual_seed(0)
    table = IdTable(5, "u", 2)
    before = table.table.detach().clone()
    table.fill_cold_rows({"u": torch.tensor([0, 0, 0, 3, 1])})
    mean = (3 * before[3] + before[4]) / 4
    torch.testing.assert_close(table.table[UNKNOWN].detach(), mean)
    torch.testing.assert_close(table.table[MISSING].detach(), mean)
    torch.testing.assert_close(table.table[FIRST:].detach(), before[FIRST:])
    table.fill_cold_rows({"u": torch.tensor([0, 0, 7, 3, 1])})  # unknown was trained: it stays
    torch.testing.assert_close(table.table[UNKNOWN].detach(), mean)


def test_row_counts_line_up_with_the_fused_table() -> None:
    layer = Embeddings(small_schema(), SIZES)
    counts = {name: torch.arange(n) + 1000 * i for i, (name, n) in enumerate(SIZES.items())}
    rows = layer.row_counts(counts)["tables.6"]
    assert rows.shape == (layer.tables["6"].shape[0],)
    for vocabulary, feature in (("user_id", "user_id"), ("genres", "genres"), ("item_id", "history")):
        start = layer.offset[feature]
        assert rows[start : start + SIZES[vocabulary]].tolist() == counts[vocabulary].tolist()


@given(st.lists(st.booleans(), min_size=1, max_size=6))
def test_masked_mean_ignores_what_is_masked(mask: list[bool]) -> None:
    vectors = torch.randn(1, len(mask), 3, dtype=torch.float64)
    kept = [v for v, m in zip(vectors[0], mask, strict=True) if m]
    expected = torch.stack(kept).mean(0) if kept else torch.zeros(3, dtype=torch.float64)
    torch.testing.assert_close(masked_mean(vectors, torch.tensor([mask]))[0], expected)


def test_attention_pooling_of_an_empty_list_is_zero_and_padding_is_left_out() -> None:
    pool, vectors = AttentionPooling(4), torch.randn(2, 3, 4)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    out = pool(vectors, mask)
    assert out[1].tolist() == [0.0] * 4
    torch.testing.assert_close(out[0], pool(vectors[:1, :2], mask[:1, :2])[0])
    assert out[0].detach().numpy() != pytest.approx(vectors[0, :2].mean(0).numpy(), abs=1e-6)


def test_tokens_are_fields_and_every_value_of_a_list() -> None:
    layer, batch = Embeddings(small_schema(), SIZES, unpooled=("user", "item")), small_batch()
    tokens, mask = layer.tokens("user", batch.user)
    assert tokens.shape == (10, 3 + 5, 6)  # user_id, age, five of the history, hour
    fields = Embeddings.forward(layer, "item", batch.item)
    item, item_mask = layer.tokens("item", batch.item)
    torch.testing.assert_close(item[:, [0, 4, 5]], fields[:, [0, 2, 3]])  # what is no list is the field
    assert torch.equal(item_mask[:, 1:4], batch.item["genres"] != 0)
    rows = batch.user["history"].long() + layer.offset["history"]
    torch.testing.assert_close(tokens[:, 2:7], layer.tables["6"][rows])
    assert torch.equal(mask[:, 2:7], batch.user["history"] != 0)
    assert mask[:, [0, 1, 7]].all()


def test_tokens_of_another_width_are_brought_to_d() -> None:
    features = (Feature(name="seen", side="user", kind="sequence", max_length=2, width=4),)
    layer = Embeddings(Schema(features=features, user_id="u", item_id="i", width=3), {"seen": 7, "u": 4, "i": 4}, unpooled=("user",))
    tokens, mask = layer.tokens("user", {"seen": torch.tensor([[3, 0]])})
    torch.testing.assert_close(tokens[0, 0], layer.resize["seen"].weight @ layer.tables["4"][3])
    assert mask.tolist() == [[True, False]]


def test_id_vectors_are_rows_of_their_table() -> None:
    vectors = IdVectors(6, "u", 3)
    assert torch.equal(vectors(torch.tensor([5, 3], dtype=torch.int32)), vectors.table[[5, 3]])
    assert list(vectors.row_counts({"u": torch.arange(6)})) == ["table"]
    vectors.fill_cold_rows({"u": torch.tensor([0, 0, 0, 1, 1, 0])})
    torch.testing.assert_close(vectors.table[2], vectors.table[3:5].mean(dim=0))
