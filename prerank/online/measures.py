"""What an online trainer tells Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from prerank.online.told import Told
from prerank.stream.measures import answer

BUCKETS = (0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0)


class Measures:
    """A registry of its own, so that two trainers in a process never share counters."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        self.rows = Counter("prerank_online_rows", "Rows learned from", registry=own)
        self.skipped = Counter("prerank_online_skipped_rows", "Rows that could not be read", registry=own)
        self.late = Counter("prerank_online_late_rows", "Rows whose impressions lie further back than memories can be read", registry=own)
        self.alarms = Counter("prerank_online_drift_alarms", "Times that the loss rose", registry=own)
        self.lag = Gauge("prerank_online_lag", "Entries of the log that wait", registry=own)
        self.rate = Gauge("prerank_online_rows_per_second", "Rows learned from a second, lately", registry=own)
        self.delay = Gauge("prerank_online_label_delay_seconds", "From the last event of a row until it was learned from", registry=own)
        self.update_delay = Gauge("prerank_online_update_delay_seconds", "From an event to the generation that knows it", registry=own)
        self.updates = Histogram("prerank_online_freshness_seconds", "That delay, of every state that was published", buckets=BUCKETS,
                                 registry=own)  # fmt: skip
        self.generation = Gauge("prerank_online_generation", "Number of the last generation", registry=own)
        self.sequence = Gauge("prerank_online_sequence", "Deltas that were published to it", registry=own)
        self.quality = Gauge("prerank_online_quality", "Metrics of the last rows", ["label", "metric"], registry=own)
        self._before = Told()

    def tell(self, told: Told) -> None:
        """Bring everything up to date."""
        for counter, name in ((self.rows, "rows"), (self.skipped, "skipped"), (self.late, "late"), (self.alarms, "alarms")):
            counter.inc(max(0, getattr(told, name) - getattr(self._before, name)))
        self._before = Told(rows=told.rows, skipped=told.skipped, late=told.late, alarms=told.alarms)
        for *_, delay, _ in told.updates:
            self.updates.observe(delay)
        for gauge, value in ((self.lag, told.lag), (self.rate, told.rate), (self.delay, told.delay),
                             (self.update_delay, told.update_delay), (self.generation, told.published),
                             (self.sequence, told.sequence)):  # fmt: skip
            gauge.set(value)
        for label, numbers in (told.metrics or {}).items():
            for metric, value in numbers.items():
                self.quality.labels(label, metric).set(value)

    def serve(self, port: int, host: str = "127.0.0.1") -> str:
        """Answer /metrics for as long as the process lives; returns the address. Raises ConfigError."""
        return answer(self._registry, port, host)
