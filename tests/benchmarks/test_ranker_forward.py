"""Our half of the comparison still runs, and the recorded one says equal. The other half needs the libraries' environment."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from benchmarks.peers import ranker_forward as forward


def test_the_record_says_equal_to_rounding() -> None:
    record = json.loads((forward.ROOT / "results" / "ranker_forward.json").read_text())
    found = {(r["library"], r["model"]) for r in record["results"]}
    assert {("DeepCTR-Torch", m) for m in forward.MODELS} | {("torchrec", c) for c in forward.CROSSES} <= found
    for result in record["results"]:
        assert result["largest_value"] > 0.1
        assert result["max_abs_difference"] <= 1e-14 * max(1, result["largest_value"]), result


@pytest.mark.parametrize("case", forward.MODELS)
def test_every_weight_is_handed_over(case: str) -> None:
    """Ids [P, F], a table for each feature, and nothing at zero: a term that a mapping forgets would show."""
    name, options = forward.MODELS[case]
    ids = torch.stack([torch.randint(0, rows, (forward.PAIRS,), dtype=torch.int32) for rows in forward.SIZES.values()], dim=1)
    arrays, logits = forward.ranker(name, options, ids)
    assert {f"table.{f}" for f in forward.SIZES} <= set(arrays)
    assert logits.shape == (forward.PAIRS, 1)
    assert all(np.abs(a).sum() > 0 for n, a in arrays.items() if "num_batches" not in n)
