"""How fp32 products are made: quickly where nothing is lost by it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from prerank.config import Training
from prerank.training import device
from prerank.training.device import configure


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    precision = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(precision)


def test_by_default_products_have_the_digits_of_fp32() -> None:
    torch.manual_seed(0)
    configure(Training(device="cpu"))
    a, b = torch.randn(300, 200), torch.randn(200, 100)
    torch.testing.assert_close((a @ b).double(), a.double() @ b.double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("rounds", "word"), [(True, "highest"), (False, "medium")])
def test_the_fast_path_is_taken_where_it_does_not_round(rounds: bool, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_medium_rounds", lambda: rounds)
    configure(Training(device="cpu"))
    assert torch.get_float32_matmul_precision() == word


@pytest.mark.parametrize("word", ["highest", "medium"])
def test_what_was_asked_for_is_taken(word: str) -> None:
    configure(Training(device="cpu", matmul=word))
    assert torch.get_float32_matmul_precision() == word


def test_looking_changes_nothing() -> None:
    torch.set_float32_matmul_precision("high")
    device._medium_rounds.__wrapped__()
    assert torch.get_float32_matmul_precision() == "high"
