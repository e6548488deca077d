"""The table of sizes is what the records say; what is not measured is left out."""

from __future__ import annotations

from typing import Any

import pytest

from docs import sizes

RECORDS: dict[str, Any] = {
    "online": {"results": {"freshness": {"events_per_second": 2001, "seconds_to_in_force": {"p50": 2.04, "p99": 7.0}},
                           "throughput": {"backbone": {"rows": 10, "rows_per_cpu_second": 21_234}}}},
    "together": {"results": {"backbone": {"1": {"rows_per_cpu_second": 20_000}, "2": {"rows_per_cpu_second": 19_000}}}},
    "growth": {"results": [{"kind": "integers", "bytes_per_row": 36.5}, {"kind": "integers", "bytes_per_row": 42.8}]},
}  # fmt: skip


def test_what_is_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "record", RECORDS.get)
    assert sizes.sizes().splitlines()[2:] == [
        "| an id of a growing vocabulary, integers | 36 to 43 bytes, and a row of each table | [growth](../results/growth.json) |",
        "| a trainer, backbone | a CPU for 20,000 rows a second | [together](../results/together.json) |",
        "| a trainer, backbone, 2 processes that learn together | a CPU for 19,000 rows a second | [together](../results/together.json) |",
        "| from an event to a state in force that knows it, 2,001 events/s | 2.0 s, p99 7.0 s | [online](../results/online.json) |",
        "| the trainer, backbone | a CPU for 21,234 rows a second | [online](../results/online.json) |",
    ]


def test_nothing_is_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "record", lambda name: None)
    assert len(sizes.sizes().splitlines()) == 2
