"""JRC against the paper's formulas, in its own two logits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from prerank import build
from prerank.batch import Output
from prerank.config import ConfigError, TermConfig
from prerank.losses import JRCTerm, jrc
from tests.conftest import small_batch, small_schema


def paper(lists: list[tuple[list[float], list[float], list[float]]], alpha: float) -> float:
    """Lists of f_0, f_1, y -> alpha L_calib + (1 - alpha) L_rank, means over samples."""
    calibration = ranking = n = 0.0
    for f0, f1, y in lists:
        for i in range(len(y)):
            clicked = y[i] == 1
            own = f1 if clicked else f0
            calibration -= math.log(math.exp(own[i]) / (math.exp(f0[i]) + math.exp(f1[i])))
            ranking -= math.log(math.exp(own[i]) / sum(math.exp(f) for f in own))
            n += 1
    return (alpha * calibration + (1 - alpha) * ranking) / n


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_jrc_is_its_formula(lists, plain, alpha: float) -> None:  # type: ignore[no-untyped-def]
    f1, labels, where = lists()
    f0 = torch.randn(f1.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    both = [(a, b, y) for (a, y), (b, _) in zip(plain(f0, labels, where), plain(f1, labels, where), strict=True)]
    assert jrc(f1 - f0, labels, f0, where=where, alpha=alpha).item() == pytest.approx(paper(both, alpha), rel=1e-10)


def test_the_term_reads_the_two_logits_that_the_config_names() -> None:
    schema = small_schema(("buy", "click", "other"))
    objective = build.objective([TermConfig.model_validate({"loss": "jrc", "label": "click", "energy": "other", "alpha": 0.2})], schema)
    batch = small_batch(lists=5, candidates=4, objectives=3)
    logits = torch.randn(5, 4, 3)
    value, _ = objective(batch, Output(logits))
    expected = jrc(logits[..., 1], batch.labels[..., 1], logits[..., 2], where=batch.where, alpha=0.2)
    torch.testing.assert_close(value, expected)
    other = replace(batch, labels=batch.labels * torch.tensor([1.0, 1.0, 0.0]))
    torch.testing.assert_close(objective(other, Output(logits))[0], value)  # the energy's own labels are not looked at


def test_gradients_against_finite_differences(lists) -> None:  # type: ignore[no-untyped-def]
    z, labels, where = lists()
    energy = torch.randn_like(z).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, e: jrc(a, labels, e, where=where), (z.requires_grad_(), energy))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "objective 'jrc': energy: must name a second label; got none"),
        ({"energy": "othr"}, r"objective 'jrc': unknown label 'othr'; did you mean 'other'\?"),
        ({"energy": "click"}, "objective 'jrc': energy: must be another label than the one that is learned"),
        ({"energy": "other", "alpha": 1.5}, r"objective 'jrc': alpha: must be in \[0, 1\]; got 1\.5"),
        ({"energy": "other", "lists": "all"}, "objective 'jrc': lists: must be own or batch; got 'all'"),
    ],
)
def test_what_is_wrong_is_told(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build.objective([TermConfig.model_validate({"loss": "jrc", **options})], small_schema(("click", "other")))


def test_the_batch_is_one_context_when_asked() -> None:
    batch, logits = small_batch(lists=8, objectives=2), torch.randn(8, 1, 2)
    value = JRCTerm(energy=1, lists="batch")(batch, Output(logits))
    expected = jrc(logits[:, 0, 0], batch.labels[:, 0, 0], logits[:, 0, 1])
    torch.testing.assert_close(value, expected)
