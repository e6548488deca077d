"""The shell of every ranker: what it computes, and that padding never enters."""

from __future__ import annotations

import pytest
import torch

from prerank.batch import Batch
from prerank.rankers import Ranker, Wide, lr
from prerank.schema import Feature, Schema

SCHEMA = Schema(
    features=(Feature(name="u", side="user"), Feature(name="i", side="item"), Feature(name="tags", side="item", kind="multi")),
    user_id="u", item_id="i", objectives=("click", "like"), width=4,
)  # fmt: skip
SIZES = {"u": 6, "i": 7, "tags": 5}


def batch() -> Batch:
    """Two lists of three, the last candidate of the second is padding."""
    user = {"u": torch.tensor([3, 4], dtype=torch.int32)}
    tags = torch.tensor([[3, 4], [4, 0], [0, 0]], dtype=torch.int32)
    item = {"i": torch.tensor([3, 4, 5], dtype=torch.int32), "tags": tags}
    where = torch.tensor([[True, True, True], [True, True, False]])
    return Batch(user, item, torch.tensor([0, 1]), torch.tensor([[0, 1, 2], [2, 1, 0]]), torch.zeros(2, 3, 2), where)


def test_lr_is_the_sum_of_its_weights() -> None:
    model = lr(SCHEMA, SIZES)
    assert isinstance(model.wide, Wide)
    table = model.wide.weights.tables["2"]
    torch.nn.init.normal_(table)
    torch.nn.init.normal_(model.wide.bias)
    output = model(batch())
    rows = {name: table[first : first + n] for name, first, n in model.wide.weights.spans["2"]}
    expected = rows["u"][3] + rows["i"][4] + rows["tags"][4] + model.wide.bias
    torch.testing.assert_close(output.logits[0, 1], expected)
    assert output.logits.shape == (2, 3, 2)
    assert output.logits[1, 2].tolist() == [0, 0]
    assert output.hidden is None


def test_a_ranker_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a network with embeddings"):
        Ranker(None, None)
