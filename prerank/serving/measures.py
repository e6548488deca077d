"""What /metrics tells Prometheus; one object an app, so that two apps in a process never share counters."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

if TYPE_CHECKING:
    from prerank.serving.desk import Answered

BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
SHARED = "PROMETHEUS_MULTIPROC_DIR"  # set by server.py when there are several workers: they share their counts in this folder
TEXT = CONTENT_TYPE_LATEST


class Measures:
    """Counters of the scoring route."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        self.seconds = Histogram("prerank_request_seconds", "Time in the scoring route, body in to body out", buckets=BUCKETS, registry=own)
        self.requests = Counter("prerank_requests", "Requests to the scoring route by HTTP status", ["status"], registry=own)
        self.users = Counter("prerank_users", "Users scored", registry=own)
        self.candidates = Counter("prerank_candidates", "Candidates received", registry=own)
        self.unknown_items = Counter("prerank_unknown_items", "Candidates that the generation does not know", registry=own)
        self.unknown_users = Counter("prerank_unknown_users", "Users whose id the generation does not know", registry=own)
        self.missing = Counter("prerank_missing_features", "User features neither stored nor given", ["feature"], registry=own)
        self.cold = Counter("prerank_cold_users", "Users scored without the memory that lies outside the generation", registry=own)
        self.generation = Gauge("prerank_generation", "Number of the generation in force", registry=own, multiprocess_mode="max")
        self.sequence = Gauge("prerank_sequence", "Deltas applied to the generation in force", registry=own, multiprocess_mode="max")
        self.posts = Gauge("prerank_posts", "Changes by POST and DELETE that are applied", registry=own, multiprocess_mode="max")
        self.logged = Counter("prerank_logged_events", "Impressions and shadows' answers that the event log has", registry=own)
        self.dropped = Counter("prerank_dropped_events", "Those that it will never have", ["reason"], registry=own)
        self.arm_requests = Counter("prerank_arm_requests", "Requests that an arm answered", ["arm"], registry=own)
        self.arm_seconds = Histogram("prerank_arm_seconds", "Time an arm or shadow took to score", ["arm"], buckets=BUCKETS, registry=own)
        self.arm_generation = Gauge("prerank_arm_generation", "Number of the generation in force in an arm", ["arm"], registry=own,
                                    multiprocess_mode="max")  # fmt: skip
        self.arm_sequence = Gauge("prerank_arm_sequence", "Deltas applied to it", ["arm"], registry=own, multiprocess_mode="max")
        self.shadows_dropped = Counter("prerank_shadow_dropped", "Requests that a shadow had no time for", ["arm"], registry=own)
        self.shadows_failed = Counter("prerank_shadow_failed", "Requests that a shadow could not score", ["arm"], registry=own)
        self.failed_reloads = Counter("prerank_failed_reloads", "Generations and deltas that could not be loaded", registry=own)

    def scored(self, answered: Sequence[Answered]) -> None:
        """Count what a successful call had in it."""
        self.users.inc(len(answered))
        for one in answered:
            request, response = one.request, one.response
            assert request.candidates is not None
            packed = isinstance(request.candidates, bytes)
            self.cold.inc(response.memory == {})
            self.candidates.inc(len(request.candidates) // (8 if packed else 1))
            self.unknown_items.inc(len(response.missing) // (8 if packed else 1))
            self.unknown_users.inc(response.unknown_user)
            for feature in response.missing_features:
                self.missing.labels(feature).inc()

    def page(self) -> bytes:
        """Prometheus' text format; of all workers together when there are several."""
        if SHARED not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)
        return generate_latest(together)
