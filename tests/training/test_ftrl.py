"""FTRL-Proximal against algorithm 1 of McMahan et al. 2013, written here once more, coordinate by coordinate."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from prerank.config import ConfigError, parse
from prerank.config import Optimizer as Settings
from prerank.losses import LossTerm, Objective, logloss
from prerank.training import Optimizer, train_step
from prerank.training.ftrl import Ftrl
from tests.conftest import SIZES, small_batch
from tests.rankers.conftest import small_ranker

COUNTS = {name: torch.arange(n) + 1 for name, n in SIZES.items()}
OBJECTIVE = Objective([LossTerm("logloss", logloss)])


def paper(rows: list[list[int]], labels: list[int], size: int, alpha: float, beta: float, l1: float, l2: float) -> np.ndarray:
    """Algorithm 1 on sparse 0/1 rows: the weights after all of them."""
    z, n = [0.0] * size, [0.0] * size

    def weight(i: int) -> float:
        if abs(z[i]) <= l1:
            return 0.0
        return -1 / ((beta + math.sqrt(n[i])) / alpha + l2) * (z[i] - math.copysign(1, z[i]) * l1)

    for row, y in zip(rows, labels, strict=True):
        w = {i: weight(i) for i in row}
        p = 1 / (1 + math.exp(-sum(w.values())))
        for i in row:
            g = p - y
            sigma = 1 / alpha * (math.sqrt(n[i] + g * g) - math.sqrt(n[i]))
            z[i] += g - sigma * w[i]
            n[i] += g * g
    return np.array([weight(i) for i in range(size)])


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("alpha", "beta", "l1", "l2"), [(0.1, 1.0, 0.0, 0.0), (0.3, 0.5, 2.0, 0.0), (0.05, 1.0, 0.2, 1.5)])
def test_the_paper_s_algorithm(alpha: float, beta: float, l1: float, l2: float, sparse: bool) -> None:
    rng = np.random.default_rng(0)
    rows = [sorted(rng.choice(12, 3, replace=False).tolist()) for _ in range(200)]
    labels = [int(rng.random() < (0.8 if 0 in row or 1 in row else 0.3)) for row in rows]
    table = torch.nn.Parameter(torch.zeros(12, 1, dtype=torch.float64))
    optimizer = Ftrl([table], lr=alpha, beta=beta, l1=l1, weight_decay=l2)
    for row, y in zip(rows, labels, strict=True):
        optimizer.zero_grad()
        logit = F.embedding(torch.tensor(row), table, sparse=sparse).sum()
        F.binary_cross_entropy_with_logits(logit, torch.tensor(float(y), dtype=torch.float64)).backward()
        optimizer.step()
    expected = paper(rows, labels, 12, alpha, beta, l1, l2)
    np.testing.assert_allclose(table.detach().numpy()[:, 0], expected, rtol=1e-10, atol=1e-12)
    assert (expected == 0).any() == (l1 > 0)


def test_the_batch_s_size_changes_nothing() -> None:
    """The mean over n copies of a row is that row's gradient over n: with rows=n the same weights come out."""
    found = []
    for rows in (1, 64):
        w = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
        optimizer = Ftrl([w], lr=0.2, beta=0.7, l1=0.4, weight_decay=0.3, rows=rows)
        g = torch.Generator().manual_seed(0)
        for _ in range(20):
            w.grad = torch.randn(5, dtype=torch.float64, generator=g) / rows
            optimizer.step()
        found.append(w.detach())
    assert found[0].abs().max() > 0.1
    torch.testing.assert_close(found[0], found[1])


def test_weights_that_do_not_start_at_zero_are_kept_until_they_have_a_gradient() -> None:
    start = torch.tensor([0.5, -0.2, 0.0, 3.0], dtype=torch.float64)
    w = torch.nn.Parameter(start.clone())
    optimizer = Ftrl([w], lr=0.1, l1=0.3, weight_decay=0.7)
    w.grad = torch.tensor([1e-9, 0.0, 0.0, 1.0], dtype=torch.float64)
    optimizer.step()
    torch.testing.assert_close(w[:3].detach(), start[:3], atol=1e-8, rtol=0)
    assert 2.9 < w[3].item() < 3.0  # it moved by about its gradient / ((beta + |g|) / alpha + l2)
    assert 3.0 - w[3].item() == pytest.approx(1 / (2 / 0.1 + 0.7), rel=1e-9)


def test_rare_coordinates_move_farther() -> None:
    w = torch.nn.Parameter(torch.zeros(2))
    optimizer = Ftrl([w], lr=0.1)
    for _ in range(100):
        w.grad = torch.tensor([1.0, 0.0])
        optimizer.step()
    before = w.detach().clone()
    w.grad = torch.tensor([1.0, 1.0])
    optimizer.step()
    moved = (w.detach() - before).abs()
    assert moved[1] > 4 * moved[0]


@pytest.mark.parametrize("sparse_from", [1, 10_000])
def test_a_model_learns_and_its_state_goes_round_through_tensors(sparse_from: int) -> None:
    settings = Settings(name="ftrl", lr=0.3, l1=1e-4, sparse_from=sparse_from)
    one = small_ranker("lr")
    first = Optimizer(one, settings, COUNTS, rows=24)
    losses = [train_step(one, OBJECTIVE, first, small_batch(seed % 3), clip=5.0)["loss"].item() for seed in range(60)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.05
    two = small_ranker("lr")
    two.load_state_dict(one.state_dict())
    second = Optimizer(two, settings, COUNTS, rows=24)
    second.load_tensors({k: v.clone() for k, v in first.tensors().items()})
    for model, optimizer in ((one, first), (two, second)):
        train_step(model, OBJECTIVE, optimizer, small_batch(9))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_row_wise_or_not_is_the_same() -> None:
    models = []
    for sparse_from in (1, 10_000):
        model = small_ranker("lr")
        optimizer = Optimizer(model, Settings(name="ftrl", lr=0.3, l1=0.01, l2=0.1, sparse_from=sparse_from), COUNTS)
        for seed in range(5):
            train_step(model, OBJECTIVE, optimizer, small_batch(seed))
        models.append(model)
    assert models[0].wide.weights.sparse
    assert not models[1].wide.weights.sparse
    for (name, a), b in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"l1": 0.1}, "training.optimizer: l1: only ftrl has it; got 0.1 with adam"),
        ({"name": "ftrl", "groups": [{"match": "*", "count_power": 0.5}]}, "training.optimizer: groups: ftrl has a rate for each"),
        ({"name": "ftrl", "beta": 0}, "training.optimizer.beta: Input should be greater than 0; got 0"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse({"training": {"optimizer": settings}})


def test_wrong_rates_are_refused() -> None:
    for options, message in (({"lr": 0}, "lr: must be above 0; got 0"), ({"l1": -1}, "l1: must be at least 0; got -1")):
        with pytest.raises(ValueError, match=message):
            Ftrl([torch.nn.Parameter(torch.zeros(1))], **options)
