"""What label waiting tells Prometheus is what it counted since it took the partition."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import generate_latest

from prerank.config import ConfigError
from prerank.stream import Feedback, Impression, Joiner, Tick, Waiting, open_log
from prerank.stream.event import encode
from prerank.stream.measures import Measures, answer

SETTINGS = Waiting.model_validate({"kinds": {"click": "1m"}, "lateness": "10s", "early": True})


def told(measures: Measures) -> dict[str, float]:
    lines = generate_latest(measures.registry).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}


def test_counts_are_of_this_process_and_gauges_of_now(tmp_path: Path) -> None:
    events, rows = open_log(f"sqlite:///{tmp_path}/events.db"), open_log(f"sqlite:///{tmp_path}/rows.db")
    shown = [Impression(request=n, user=1, item=2, ts=100_000) for n in range(3)]
    events.append([encode(e) for e in (*shown, Feedback(request=0, item=2, ts=101_000, kind="click"))] + [b"poison"])
    joiner, measures = Joiner(events, rows, SETTINGS, tmp_path / "state"), Measures()
    measures.tell(joiner)
    assert told(measures) == {}
    joiner.step()
    measures.tell(joiner)
    found = told(measures)
    assert found['prerank_labels_total{partition="0",what="impressions"}'] == 3
    assert found['prerank_labels_total{partition="0",what="rows"}'] == 1  # the click was all that was waited for
    assert found['prerank_labels_dead_total{partition="0",reason="malformed"}'] == 1
    assert found['prerank_labels_watermark_seconds{partition="0"}'] == 101 - 10
    assert found['prerank_labels_in_memory{partition="0"}'] == 3
    assert found['prerank_labels_lag{partition="0"}'] == 0
    joiner.close()
    events.append([encode(Tick(ts=300_000))])
    again = Joiner(events, rows, SETTINGS, tmp_path / "state")
    again.step()
    measures.tell(again)
    found = told(measures)
    assert found['prerank_labels_total{partition="0",what="impressions"}'] == 0
    assert found['prerank_labels_total{partition="0",what="rows"}'] == 2
    again.close()
    events.close()
    rows.close()


def test_a_port_in_use_is_told() -> None:
    measures = Measures()
    url = answer(measures.registry, 0)
    port = int(url.split(":")[2].split("/")[0])
    with pytest.raises(ConfigError, match=rf"--metrics-port {port} on 127.0.0.1: address already in use; choose another"):
        answer(measures.registry, port)
