"""What label waiting tells Prometheus; and how a process that is no server answers /metrics.

    measures = Measures();  measures.tell(joiner)         now and then, from the thread that runs it
    answer(measures.registry, 9101)                       http://127.0.0.1:9101/metrics, from a thread of its own

Counters are of a partition since this process took it, so that one which moves on begins anew wherever it goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from prerank.config import ConfigError
from prerank.stream.joiner import Joiner
from prerank.stream.log import LogError

DEAD = "dead "  # of a count: what follows is the reason


class Seen(NamedTuple):
    """A partition as it stood. lag None: the log is away."""

    partition: int
    counts: Mapping[str, int]
    lost: int
    in_memory: int
    watermark: int
    lag: int | None


class Measures(Collector):
    """Label waiting's metrics, as of the last `tell`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._seen: list[Seen] = []
        self.registry.register(self)

    def tell(self, joiner: Joiner) -> None:
        """Bring everything up to date."""
        found = []
        for part in joiner.parts.values():
            lag: int | None = None
            with suppress(LogError):
                lag = part.lag
            counts = {name: n - part.begun.get(name, 0) for name, n in part.waiting.counts.items()}
            found.append(Seen(part.partition, counts, part.lost, len(part.waiting), part.waiting.watermark, lag))
        self._seen = found

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        total = CounterMetricFamily("prerank_labels", "What happened, by kind", labels=["partition", "what"])
        dead = CounterMetricFamily("prerank_labels_dead", "Events that could not be used, by reason", labels=["partition", "reason"])
        lost = CounterMetricFamily("prerank_labels_lost", "Events that were trimmed before they were read", labels=["partition"])
        memory = GaugeMetricFamily("prerank_labels_in_memory", "Impressions that wait or are remembered", labels=["partition"])
        watermark = GaugeMetricFamily("prerank_labels_watermark_seconds", "No earlier event is waited for", labels=["partition"])
        lag = GaugeMetricFamily("prerank_labels_lag", "Events that are not read, or whose rows are not appended", labels=["partition"])
        for seen in self._seen:
            partition = str(seen.partition)
            for name, n in seen.counts.items():
                if name.startswith(DEAD):
                    dead.add_metric([partition, name.removeprefix(DEAD)], n)
                else:
                    total.add_metric([partition, name], n)
            lost.add_metric([partition], seen.lost)
            memory.add_metric([partition], seen.in_memory)
            if seen.watermark > 0:  # before the first event there is none
                watermark.add_metric([partition], seen.watermark / 1000)
            if seen.lag is not None:
                lag.add_metric([partition], seen.lag)
        yield from (total, dead, lost, memory, watermark, lag)


def answer(registry: CollectorRegistry, port: int, host: str = "127.0.0.1") -> str:
    """Answer /metrics for as long as the process lives; returns the address. Raises ConfigError: the port is in use, no such host.

    port   0: any that is free
    """
    try:
        server, _ = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise ConfigError(f"--metrics-port {port} on {host}: {(error.strerror or str(error)).lower()}; choose another") from None
    return f"http://{host}:{server.server_port}/metrics"
