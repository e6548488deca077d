"""The growth benchmark in small: every id passes, and memory stays within what the vocabulary says."""

from __future__ import annotations

import pytest

from benchmarks.growth import stream


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("expire", ["2s", "30d"])
def test_memory_is_bounded(text: bool, expire: str) -> None:
    found = stream(200_000, 20_000, text, expire, 0)
    assert found["admitted"] >= 200_000
    assert found["held"] <= 20_000 - 3
    assert found["within"], found
    assert found["new_ids_per_cpu_second"] > 20_000
