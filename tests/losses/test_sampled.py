"""In-batch sampled softmax against a loop written from the paper's formulas."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from prerank import build
from prerank.batch import Batch, Output
from prerank.config import TermConfig
from prerank.losses import Objective, SampledSoftmaxTerm
from tests.conftest import SIZES, small_batch, small_model, small_schema

COUNTS = {name: np.arange(n) * 3 for name, n in SIZES.items()}


def objective(**options: object) -> Objective:
    return build.objective([TermConfig.model_validate({"loss": "in_batch_softmax", **options})], small_schema(), COUNTS)


def expected(batch: Batch, model: torch.nn.Module, *, logq: bool, temperature: float) -> float:
    """Every positive against every distinct item, whose logit comes from the model itself."""
    n = next(iter(batch.item.values())).shape[0]
    every = replace(batch, item_index=torch.arange(n).expand(batch.rows, n), labels=torch.zeros(batch.rows, n, 1),
                    where=torch.ones(batch.rows, n, dtype=torch.bool))  # fmt: skip
    logits = model(every).logits[..., 0].tolist()
    candidates = int(batch.where.sum())
    counts = COUNTS["item_id"]
    total = mass = 0.0
    for b in range(batch.rows):
        for c in range(batch.item_index.shape[1]):
            y = float(batch.labels[b, c, 0])
            if not batch.where[b, c] or y <= 0:
                continue
            scores = []
            for v in range(n):
                q = float(counts[batch.item["item_id"][v].item()]) / float(counts.sum())
                chance = 1 - (1 - q) ** candidates
                scores.append(math.exp(logits[b][v] / temperature) / (chance if logq else 1))
            total -= y * math.log(scores[batch.item_index[b, c]] / sum(scores))
            mass += y
    return total / mass


@pytest.mark.parametrize("name", ["mf", "dssm-dot-id-head", "inttower", "inttower-uneven-cosine", "inttower-id-head"])
@pytest.mark.parametrize("shape", [(24, 1), (5, 4)])
@pytest.mark.parametrize("logq", [True, False])
def test_it_is_its_formula(name: str, shape: tuple[int, int], logq: bool) -> None:
    model = small_model(name).eval()
    batch = small_batch(lists=shape[0], candidates=shape[1], items=8)
    batch = replace(batch, labels=batch.labels * 2.5)  # graded: the paper's reward
    with torch.no_grad():
        found, _ = objective(logq=logq, temperature=0.5)(batch, model(batch))
        assert found.item() == pytest.approx(expected(batch, model, logq=logq, temperature=0.5), rel=1e-4)


def test_the_correction_undoes_popularity() -> None:
    """Tastes are equal and item 0 turns up nine times as often: what is learned has no popularity in it, without the correction it has."""
    learned = {}
    for logq in (True, False):
        torch.manual_seed(0)
        shown = torch.cat([torch.zeros(900), torch.arange(1, 11).repeat(10)]).long()
        counts = torch.bincount(shown, minlength=11)
        bias = torch.nn.Parameter(torch.zeros(11))
        optimizer = torch.optim.Adam([bias], lr=0.05)
        term = SampledSoftmaxTerm(logq=logq, item_counts=counts)
        for _ in range(400):
            batch, output = drawn(shown[torch.randint(0, 1000, (16,))], bias)
            loss = term(batch, output)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        learned[logq] = (bias[0] - bias[1:].mean()).item()
    assert learned[False] < learned[True]
    assert learned[True] == pytest.approx(math.log(90), abs=0.6)  # the true log odds of the draw: 900 to 10 each


def drawn(items: torch.Tensor, bias: torch.nn.Parameter) -> tuple[Batch, Output]:
    """A batch of positives of one user, and a model that is a bias an item."""
    from prerank.batch import Group, Representation

    distinct, index = items.unique(return_inverse=True)
    n = len(items)
    batch = Batch({"user_id": torch.zeros(1, dtype=torch.int32)}, {"item_id": distinct.int()}, torch.zeros(n, dtype=torch.int64),
                  index.unsqueeze(1), torch.ones(n, 1, 1), torch.ones(n, 1, dtype=torch.bool))  # fmt: skip
    item = Representation((torch.zeros(len(distinct), 1, 1),), bias[distinct].unsqueeze(1))
    return batch, Output(bias[items].view(n, 1, 1), Representation((torch.zeros(1, 1, 1),)), item, (Group(1, 1, 1),))


def test_without_counts_it_says_what_is_needed() -> None:
    batch, model = small_batch(), small_model("mf")
    term = build.objective([TermConfig(loss="in_batch_softmax")], small_schema())
    with pytest.raises(ValueError, match="objective 'in_batch_softmax': its correction needs the items' train counts"):
        term(batch, model(batch))


def test_a_model_that_compares_in_another_way_is_refused() -> None:
    batch, model = small_batch(), small_model("mf")
    output = model(batch)
    with pytest.raises(ValueError, match="needs a model whose logit is the MaxSim of its head groups plus biases"):
        objective()(batch, replace(output, logits=output.logits + 1))
    with pytest.raises(ValueError, match="compares user and item representations, a ranking model has none"):
        objective()(batch, Output(output.logits))


def test_a_temperature_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"temperature: must be positive; got 0\.0"):
        SampledSoftmaxTerm(temperature=0.0)
