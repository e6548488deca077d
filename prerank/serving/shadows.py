"""Models that are asked what they would have answered, after the answer was sent; nobody hears them but the log.

    shadows = Shadows(arms, recorder, measures)
    shadows.put(answered, ts)            returns at once; dropped, and counted, where too many wait already

One thread asks them all, so that they take at most one core from those who answer.
"""

from __future__ import annotations

import logging
import queue
import threading
import time

from prerank.serving.arms import Arms, Member
from prerank.serving.desk import Answered
from prerank.serving.measures import Measures
from prerank.serving.messages import MessageError
from prerank.serving.recorder import Recorder, numbers
from prerank.stream import Shadow

WAITING = 100  # requests that wait at most
log = logging.getLogger("prerank.serving")


class Shadows:
    """See the module's first lines. recorder None: what they say is measured only."""

    def __init__(self, arms: Arms, recorder: Recorder | None, measures: Measures) -> None:
        self._arms, self._recorder, self._measures = arms, recorder, measures
        self._waiting: queue.SimpleQueue[tuple[Answered, int] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="prerank shadows", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def put(self, answered: Answered, ts: int) -> None:
        """Let the shadows score an answered request."""
        if self._waiting.qsize() < WAITING:
            self._waiting.put((answered, ts))
            return
        for member in self._arms.shadows:
            self._measures.shadows_dropped.labels(member.name).inc()

    def close(self) -> None:
        """What waits is still asked."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (one := self._waiting.get()) is not None:
            for member in self._arms.shadows:
                try:
                    self._ask(member, *one)
                except MessageError:  # a request that this model does not take
                    self._measures.shadows_failed.labels(member.name).inc()
                except Exception:
                    self._measures.shadows_failed.labels(member.name).inc()
                    log.exception("shadow '%s' failed", member.name)

    def _ask(self, member: Member, answered: Answered, ts: int) -> None:
        scorer, begun = member.live.scorer, time.perf_counter()
        ((said, _),) = scorer.answer([self._arms.known(answered.request, member)], [""])
        seconds = time.perf_counter() - begun
        self._measures.arm_seconds.labels(member.name).observe(seconds)
        if self._recorder is None or not answered.request.log:
            return
        state, experiment = scorer.generation, self._arms.experiment
        assert experiment is not None
        assert answered.id is not None
        assert member.name is not None
        self._recorder.put_event(Shadow(
            request=answered.id, user=answered.request.user, ts=ts, arm=member.name, items=numbers(said.items, "<i8"),
            scores=numbers(said.scores, "<f4"), experiment=experiment.name, generation=state.meta.number, sequence=state.sequence,
            posts=state.posts, latency=round(1000 * seconds, 3)))  # fmt: skip
