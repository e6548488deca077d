"""Histories against their formula, written row by row, and that no row is told of its own label."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prerank.layers import history
from prerank.layers.history import History

IDS, OTHERS, LEVELS, WIDTH = 9, 7, 2, 4


def log(rows: int = 60) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Interactions, some of them more than once; id 8 has none."""
    g = torch.Generator().manual_seed(1)
    ids, others, level = (torch.randint(0, n, (rows,), generator=g) for n in (8, OTHERS, LEVELS))
    return ids, others, level


def layer() -> History:
    torch.manual_seed(0)
    made = History(IDS, OTHERS, WIDTH, LEVELS, std=1.0).double()
    made.remember(*log())
    return made


def oracle(made: History, left_out: list[int]) -> np.ndarray:
    """n^-1/2 sum of factors over an id's interactions, those at `left_out` not counted."""
    factors = made.factors.detach().numpy().reshape(OTHERS, LEVELS, WIDTH)
    ids, others, level = (x.numpy() for x in log())
    expected = np.zeros((IDS, WIDTH))
    for u in range(IDS):
        rows = [r for r in range(len(ids)) if ids[r] == u and r not in left_out]
        expected[u] = sum((factors[others[r], level[r]] for r in rows), np.zeros(WIDTH)) / np.sqrt(max(len(rows), 1))
    return expected


@pytest.mark.parametrize("whole", [0.0, 9.0])  # sum everything, or the lists of the batch's ids alone
def test_training_leaves_the_batch_out(monkeypatch: pytest.MonkeyPatch, whole: float) -> None:
    monkeypatch.setattr(history, "WHOLE", whole)
    made, batch = layer(), [0, 5, 17, 40, 59]
    made.leave_out(*(x[batch] for x in log()))
    ids = torch.tensor([4, 0, 4, 8, 1, 2, 3, 7])  # in any order, an id twice, one without a history
    said = made(ids)
    np.testing.assert_allclose(said.detach().numpy(), oracle(made, batch)[ids.numpy()], atol=1e-12)
    weights = torch.randn(said.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (said * weights).sum().backward()
    assert made.factors.grad is not None
    for row, column in ((0, 0), (5, 2), (13, 3)):  # against finite differences
        slope = 0.0
        for sign in (1, -1):
            moved = layer()
            with torch.no_grad():
                moved.factors[row, column] += sign * 1e-4
            slope += sign * float((torch.from_numpy(oracle(moved, batch)[ids.numpy()]) * weights).sum()) / 2e-4
        assert made.factors.grad[row, column].item() == pytest.approx(slope, abs=1e-6)


def test_what_is_not_remembered_cannot_be_left_out_and_equal_ones_count_each() -> None:
    made = History(3, 2, WIDTH, 1, std=1.0)
    made.remember(torch.tensor([1, 1, 1, 2]), torch.tensor([0, 0, 1, 1]), torch.zeros(4, dtype=torch.int64))
    made.leave_out(torch.tensor([1, 0, 2, 2]), torch.tensor([0, 1, 0, 1]), torch.zeros(4, dtype=torch.int64))
    said, (a, b) = made(torch.tensor([0, 1, 2])), made.factors
    torch.testing.assert_close(said, torch.stack([0 * a, (a + b) / 2**0.5, 0 * a]))


def test_outside_training_it_is_a_table_of_all_interactions() -> None:
    made = layer().eval()
    assert not made(torch.arange(IDS)).any()
    made.settle()
    np.testing.assert_allclose(made(torch.arange(IDS)).detach().numpy(), oracle(made, []), atol=1e-12)


def test_a_flipped_label_changes_nothing_that_its_row_sees() -> None:
    """Bit by bit: the own interaction is weighted by zero, not added and taken away again."""
    said = []
    for flip in (0, 1):
        torch.manual_seed(0)
        made = History(IDS, OTHERS, WIDTH, LEVELS, std=1.0)
        ids, others, level = log()
        level = level.clone()
        level[:8] = (level[:8] + flip) % 2
        made.remember(ids, others, level)
        made.leave_out(ids[:8], others[:8], level[:8])
        said.append(made(ids[:8]))
    assert torch.equal(said[0], said[1])


def test_training_without_being_told_is_refused() -> None:
    with pytest.raises(ValueError, match="remember"):
        History(IDS, OTHERS, WIDTH, LEVELS, std=1.0)(torch.arange(2))
