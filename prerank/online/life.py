"""Simulated users who live with a server: they ask, see what it shows them, click by the world's truth, and all of it goes to the log.

    life = Life(world, client, events, frozen)
    for interval in life.live(rate=50, check=...):
        interval.told()

Every request is also ordered by its arm's frozen model, by the truth itself, and not at all: what each would have shown is told in true
click probability. The server logs what it answered; clicks come from here. The requests of the last part are kept, so that another model
can be asked the same afterwards.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prerank.online.living import Asked, LivingWorld
from prerank.serving import Client, Request, Scorer
from prerank.serving.client import ClientError
from prerank.stream import Client as Events
from prerank.stream import Feedback, now

SHOWN = 10  # items of an answer
INTERVAL = 5.0  # seconds of a line of the report
KEPT = 0.2  # of the time, its end, and two intervals more: requests of it are kept


@dataclass
class Interval:
    """Some seconds: true click probability of what each would have shown, and what the system said of itself."""

    at: float
    requests: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    generation: int = 0
    sequence: int = 0
    failed: int = 0
    arms: dict[str, list[float]] = field(default_factory=dict)  # requests, sum of what was shown, sum of the frozen model's
    milliseconds: list[float] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        n = max(self.requests, 1)
        means = {name: total / n for name, total in self.sums.items()}
        p50, p99 = np.quantile(self.milliseconds, (0.5, 0.99)).tolist() if self.milliseconds else (math.nan, math.nan)
        return {"at": round(self.at, 1), "requests": self.requests, "failed": self.failed, "generation": self.generation,
                "sequence": self.sequence, **means, "p50_ms": p50, "p99_ms": p99,
                "arms": {arm: {"requests": int(m), "online": a / m, "frozen": b / m} for arm, (m, a, b) in self.arms.items()}}  # fmt: skip


class Life:
    """See the module's first lines.

    frozen   {arm: model}
    served   (arm, generation, sequence) -> Unix time of the first answer that came of it
    kept     single requests of the last part, with the seconds at which they were asked
    """

    def __init__(self, world: LivingWorld, client: Client, events: Events, frozen: Mapping[str, Scorer]) -> None:
        self.world, self.client, self.events, self.frozen = world, client, events, frozen
        self.served: dict[tuple[str, int, int], float] = {}
        self.kept: list[tuple[Asked, float]] = []
        self._n = 0

    def live(self, rate: float, check: Callable[[], None]) -> Iterator[Interval]:
        """Requests at the rate, until the time is over; an interval whenever one has ended. check: called between them."""
        begun = time.monotonic()
        asked, interval = 0, Interval(0.0)
        while (at := time.monotonic() - begun) < self.world.seconds:
            due = int(at * rate) - asked
            if due <= 0:
                time.sleep(0.5 / rate)
                continue
            requests = self.world.ask(min(due, 32))
            asked += len(requests.user)
            for i in range(len(requests.user)):
                self._one(requests.one(i), at, interval)
            if time.monotonic() - begun - interval.at >= INTERVAL:
                check()
                yield interval
                interval = Interval(time.monotonic() - begun)
        yield interval

    def _one(self, asked: Asked, at: float, interval: Interval) -> None:
        """One request: answered, shown, clicked, logged; and ordered by the others, too."""
        n, self._n = self._n, self._n + 1
        truth = self.world.truth(asked, at)[0]
        user, ids, context = raw(asked)
        begun = time.monotonic()
        try:
            answer = self.client.score(ids, user=user, k=SHOWN, context=context, request=n)
        except ClientError:
            interval.failed += 1
            return
        interval.milliseconds.append(1000 * (time.monotonic() - begun))
        arm = answer.arm or ""
        self.served.setdefault((arm, answer.generation, answer.sequence), time.time())
        place = {item: c for c, item in enumerate(ids)}
        shown = np.array([place[item] for item in answer.items])
        choices = {"online": shown, "frozen": chosen(self.frozen[arm], asked), "best": np.argsort(-truth)[:SHOWN],
                   "blind": np.arange(SHOWN)}  # fmt: skip
        worth = {name: float(truth[choice].mean()) for name, choice in choices.items()}
        for name, value in worth.items():
            interval.sums[name] = interval.sums.get(name, 0.0) + value
        before = interval.arms.get(arm, [0.0, 0.0, 0.0])
        interval.arms[arm] = [a + b for a, b in zip(before, (1.0, worth["online"], worth["frozen"]), strict=True)]
        interval.requests += 1
        interval.generation, interval.sequence = answer.generation, answer.sequence
        if at >= (1 - KEPT) * self.world.seconds - 2 * INTERVAL:
            self.kept.append((asked, at))
        ts = now()
        for item, clicked in zip(answer.items, self.world.clicks(truth[shown]), strict=True):
            if clicked:
                self.events.send(Feedback(request=n, item=item, ts=ts + int(self.world.random.integers(50, 1000)), kind="click"))


def raw(asked: Asked) -> tuple[int, list[int], dict[str, int]]:
    """A single request as a server is asked it: user id, candidates, context."""
    return int(asked.user[0]) + 1, (asked.items[0] + 1).tolist(), {"scene": int(asked.scene[0]), "hour": int(asked.hour[0])}


def chosen(scorer: Scorer, asked: Asked) -> NDArray[np.int64]:
    """Places among the candidates of what a model would show of a single request, best first.  # [SHOWN]"""
    user, ids, context = raw(asked)
    (answer,) = scorer.score([Request(candidates=[*ids], user=user, k=SHOWN, context=context)])
    place = {item: c for c, item in enumerate(ids)}
    return np.array([place[item] for item in answer.items])
