"""What a trainer tells Prometheus."""

from __future__ import annotations

import math

import httpx

from prerank.online import Told
from prerank.online.measures import Measures
from prerank.stream import Source

AT = Source(7, 0)


def test_counters_add_up_and_gauges_are_of_now() -> None:
    measures = Measures()
    measures.tell(Told(rows=100, late=1, lag=5, published=2, updates=[(0.0, 1, 0, 1.2, AT), (1.0, 2, 0, 4.0, AT)]))
    measures.tell(Told(rows=150, late=1, skipped=2, lag=3, published=2, sequence=4, update_delay=1.5, updates=[(2.0, 2, 4, 1.5, AT)],
                       metrics={"click": {"auc": 0.75, "logloss": math.nan}}))  # fmt: skip
    page = httpx.get(measures.serve(0)).text
    found = {name: float(value) for name, _, value in (line.rpartition(" ") for line in page.splitlines() if line[0] != "#")}
    assert found["prerank_online_rows_total"] == 150
    assert (found["prerank_online_late_rows_total"], found["prerank_online_skipped_rows_total"]) == (1, 2)
    assert (found["prerank_online_lag"], found["prerank_online_generation"], found["prerank_online_sequence"]) == (3, 2, 4)
    assert found['prerank_online_freshness_seconds_bucket{le="2.0"}'] == 2
    assert found["prerank_online_freshness_seconds_count"] == 3
    assert found['prerank_online_quality{label="click",metric="auc"}'] == 0.75
