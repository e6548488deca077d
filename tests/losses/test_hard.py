"""Hard negatives and implicit mimic against numpy, written from their formula."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from prerank.batch import Batch, Group, Output, Representation
from prerank.losses import HardMimicTerm, HardNegativesTerm
from tests.conftest import small_batch, small_model

torch.manual_seed(0)


def made(batch: Batch, width: int = 5) -> Output:
    """Random vectors and guesses for a batch's rows."""
    users, items = len(batch.user["user_id"]), len(batch.item["item_id"])
    user = Representation((torch.randn(users, 1, width).requires_grad_(),), guess=torch.randn(users, width).requires_grad_())
    item = Representation((torch.randn(items, 1, width).requires_grad_(),), guess=torch.randn(items, width).requires_grad_())
    return Output(torch.zeros(*batch.item_index.shape, 1), user, item, (Group(1, 1, width, cosine=True),))


def unit(x: torch.Tensor) -> np.ndarray:
    found = x.detach().numpy().reshape(len(x), -1)
    return found / np.sqrt((found**2).sum(1, keepdims=True))


def expected(batch: Batch, out: Output, n: int, t: float, asking: torch.Tensor) -> float:
    """The mean over positives of -log softmax of the positive against the user's n hardest other items."""
    assert out.user is not None
    assert out.item is not None
    u, v, q = unit(out.user.groups[0]), unit(out.item.groups[0]), unit(asking)
    pairs = [(int(batch.user_index[b]), int(batch.item_index[b, c])) for b in range(batch.rows) for c in range(batch.item_index.shape[1])
             if batch.where[b, c] and batch.labels[b, c, 0] > 0]  # fmt: skip
    losses = []
    for i, j in pairs:
        own = {item for user, item in pairs if user == i}
        others = sorted((k for k in range(len(v)) if k not in own), key=lambda k: -float(u[i] @ v[k]))[:n]
        own_score = np.exp(q[i] @ v[j] / t)
        losses.append(-np.log(own_score / (own_score + sum(np.exp(q[i] @ v[k] / t) for k in others))))
    return float(np.mean(losses))


@pytest.mark.parametrize("n", [1, 4, 100])
@pytest.mark.parametrize("shape", [(24, 1), (6, 4)])
def test_both_are_their_formula(shape: tuple[int, int], n: int) -> None:
    batch = small_batch(lists=shape[0], candidates=shape[1])
    out = made(batch)
    assert out.user is not None
    assert out.user.guess is not None
    got = HardNegativesTerm(negatives=n, temperature=0.3)(batch, out)
    assert got.item() == pytest.approx(expected(batch, out, n, 0.3, out.user.groups[0]), rel=1e-5)
    got = HardMimicTerm(negatives=n, temperature=0.3)(batch, out)
    assert got.item() == pytest.approx(expected(batch, out, n, 0.3, out.user.guess), rel=1e-5)


def test_who_feels_which() -> None:
    batch = small_batch()
    out = made(batch)
    assert out.user is not None
    assert out.item is not None
    HardMimicTerm()(batch, out).backward()
    assert out.user.guess is not None
    assert out.user.guess.grad is not None
    assert out.user.groups[0].grad is None
    assert out.item.groups[0].grad is None
    HardNegativesTerm()(batch, out).backward()
    assert out.user.groups[0].grad is not None
    assert out.item.groups[0].grad is not None


def test_a_user_who_likes_everything_has_no_negatives() -> None:
    batch = small_batch(lists=2, candidates=3, users=1, items=3)
    batch = replace(batch, user_index=torch.zeros(2, dtype=torch.int64), item_index=torch.arange(3).expand(2, 3),
                    where=torch.ones(2, 3, dtype=torch.bool), labels=torch.ones(2, 3, 1))  # fmt: skip
    out = made(batch)
    loss = HardNegativesTerm()(batch, out)
    loss.backward()
    assert loss.item() == 0.0
    assert out.item is not None
    assert out.item.groups[0].grad is not None
    assert torch.isfinite(out.item.groups[0].grad).all()


def test_without_positives_they_are_zero() -> None:
    batch = small_batch()
    empty = replace(batch, labels=batch.labels * 0)
    assert HardNegativesTerm()(empty, made(batch)).item() == HardMimicTerm()(empty, made(batch)).item() == 0.0


def test_last_level_of_inttower_is_mined_and_uneven_heads_are_refused() -> None:
    batch = small_batch()
    assert HardNegativesTerm()(batch, small_model("inttower")(batch)).item() > 0
    with pytest.raises(ValueError, match="objective 'hard_negatives': user and item heads must be as many; there are 3 and 2"):
        HardNegativesTerm()(batch, small_model("inttower-uneven-cosine")(batch))
    with pytest.raises(ValueError, match="objective 'hard_negatives': compares user and item vectors, which a ranking model does not have"):
        HardNegativesTerm()(batch, Output(torch.zeros(24, 1, 1)))


def test_wrong_options_are_told() -> None:
    with pytest.raises(ValueError, match="negatives: must be at least 1; got 0"):
        HardNegativesTerm(negatives=0)
    with pytest.raises(ValueError, match="temperature: must be positive; got 0"):
        HardMimicTerm(temperature=0)
