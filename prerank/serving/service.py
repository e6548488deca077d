"""What runs in a server: the arms, followed; the desk where requests are answered; what is recorded and shadowed afterwards.

    service = Service(settings, build)
    async with service.running(): ...        one of these a worker
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prerank import __version__
from prerank.serving.arms import Arms, Member
from prerank.serving.desk import Answered, Desk
from prerank.serving.experiment import Experiment
from prerank.serving.live import Live
from prerank.serving.measures import Measures
from prerank.serving.memory import patient
from prerank.serving.recorder import Recorder
from prerank.serving.scorer import Builder
from prerank.serving.shadows import Shadows
from prerank.stream import now

log = logging.getLogger("prerank.serving")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the server is told; picklable, so that workers can be given it."""

    folder: Path | None  # of generations, or one generation; None: the experiment names them
    token: str | None = None  # bearer token that every route but /health asks for
    body_limit: int = 8_000_000  # bytes; more is 413
    candidate_limit: int = 100_000  # of a request, batches summed up; more is 422
    follow_seconds: float = 1.0  # between two looks for a new generation; 0: never
    source: str | None = None  # url that generations and deltas come from (follow.py); None: they are written into the folder
    log: str | None = None  # address of the event log that answers go to, and POST /events
    experiment: Experiment | None = None  # which users get which model
    memory_seconds: float = 0.05  # that a request waits for users' memory outside the generations


def opened(settings: Settings, build: Builder) -> Arms:
    """The models, each in its state in force. Raises GenerationError."""
    patiently = patient(build, settings.memory_seconds)
    return Arms.of(settings.folder, settings.source, settings.experiment, patiently, settings.log is not None)


class Service:
    """See the module's first lines. Raises GenerationError when there is nothing to serve, ValueError for a log's wrong address."""

    def __init__(self, settings: Settings, build: Builder) -> None:
        self.settings, self.measures = settings, Measures()
        self.arms = opened(settings, build)
        self.desk = Desk(self.arms, self.measures)
        self.recorder = None if settings.log is None else Recorder(settings.log, self.measures)
        self.shadows = Shadows(self.arms, self.recorder, self.measures) if self.arms.shadows else None
        self.noted()

    @property
    def live(self) -> Live:
        """The only model's, or the first arm's."""
        return self.arms.members[0].live

    def noted(self) -> None:
        """Tell the measures which states are in force."""
        generation = self.live.scorer.generation
        self.measures.generation.set(generation.meta.number)
        self.measures.sequence.set(generation.sequence)
        self.measures.posts.set(generation.posts)
        for member in self._named():
            state = member.live.scorer.generation
            self.measures.arm_generation.labels(member.name).set(state.meta.number)
            self.measures.arm_sequence.labels(member.name).set(state.sequence)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow, record and shadow until it is left."""
        seconds, tasks = self.settings.follow_seconds, []
        if seconds:
            tasks = [asyncio.create_task(live.follow(seconds, self._changed)) for live in self.arms.lives]
        workers: list[Recorder | Shadows] = [w for w in (self.shadows, self.recorder) if w is not None]
        for worker in workers:
            worker.start()
        yield
        for task in tasks:
            task.cancel()
        for worker in workers:
            await asyncio.to_thread(worker.close)

    def afterwards(self, answered: Sequence[Answered], seconds: float) -> Callable[[], None] | None:
        """What is to be done once the answer is sent; None: nothing."""
        if self.recorder is None and self.shadows is None:
            return None
        ts = now()

        def done() -> None:
            for one in answered:
                if self.recorder is not None and one.request.log:
                    self.recorder.put(one, ts, 1000 * seconds)
                if self.shadows is not None:
                    self.shadows.put(one, ts)

        return done

    def health(self) -> dict[str, Any]:
        """Whether all is well, and from which states it answers."""
        why = [f"{member.name}: {w}" if member.name else w for member in self.arms.members for w in member.live.scorer.cold]
        if self.recorder is not None and (problem := self.recorder.problem) is not None:
            why.append(problem)
        status = {"status": "degraded", "why": why} if why else {"status": "ok"}
        told = {**status, **_state(self.live), "version": __version__}
        experiment = self.arms.experiment
        if experiment is not None:
            shares = {arm.name: {"share": arm.share} for arm in experiment.arms}
            told |= {"experiment": experiment.name,
                     "arms": {m.name: shares[m.name or ""] | _state(m.live) for m in self.arms.members},
                     "shadow": {m.name: _state(m.live) for m in self.arms.shadows}}  # fmt: skip
        return told

    def _changed(self, swapped: bool) -> None:
        if swapped:
            self.noted()
        else:
            self.measures.failed_reloads.inc()

    def _named(self) -> list[Member]:
        return [m for m in (*self.arms.members, *self.arms.shadows) if m.name is not None]


def _state(live: Live) -> dict[str, Any]:
    generation = live.scorer.generation
    meta = generation.meta
    state = {"generation": meta.number, "sequence": generation.sequence, "posts": generation.posts}
    return {**state, "items": meta.items, "users": meta.users, "name": meta.name}
