from __future__ import annotations

import pytest
import torch

from prerank.batch import Output
from prerank.losses.complexity import ComplexityTerm
from tests.conftest import small_batch


def test_it_is_what_the_model_says() -> None:
    output = Output(torch.zeros(24, 1, 1), extras={"complexity": torch.tensor(2.5)})
    assert ComplexityTerm(weight=0.1)(small_batch(), output).item() == 2.5


def test_a_model_that_says_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="objective 'complexity': needs a model that learns which fields to keep: fscd without keep"):
        ComplexityTerm()(small_batch(), Output(torch.zeros(24, 1, 1)))
