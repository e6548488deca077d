"""Simulated users who live with a server: they ask, see what it shows them, click by the world's truth, and all of it goes to the log.

    life = Life(world, client, events, frozen)
    for interval in life.live(rate=50, check=...):
        interval.told()

Every request is also ordered by a frozen model, by the truth itself, and not at all: what each would have shown is told in true click
probability. The requests of the last part are kept, so that another model can be asked the same afterwards.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prerank.online.living import Asked, LivingWorld
from prerank.serving import Client, Request, Scorer
from prerank.serving.client import ClientError
from prerank.stream import Client as Events
from prerank.stream import Feedback, Impression, now

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
    milliseconds: list[float] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        n = max(self.requests, 1)
        means = {name: total / n for name, total in self.sums.items()}
        p50, p99 = np.quantile(self.milliseconds, (0.5, 0.99)).tolist() if self.milliseconds else (math.nan, math.nan)
        return {"at": round(self.at, 1), "requests": self.requests, "failed": self.failed, "generation": self.generation,
                "sequence": self.sequence, **means, "p50_ms": p50, "p99_ms": p99}  # fmt: skip


class Life:
    """See the module's first lines.

    served   (generation, sequence) -> Unix time of the first answer that came of it
    kept     single requests of the last part, with the seconds at which they were asked
    """

    def __init__(self, world: LivingWorld, client: Client, events: Events, frozen: Scorer) -> None:
        self.world, self.client, self.events, self.frozen = world, client, events, frozen
        self.served: dict[tuple[int, int], float] = {}
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
            answer = self.client.score(ids, user=user, k=SHOWN, context=context)
        except ClientError:
            interval.failed += 1
            return
        interval.milliseconds.append(1000 * (time.monotonic() - begun))
        self.served.setdefault((answer.generation, answer.sequence), time.time())
        place = {item: c for c, item in enumerate(ids)}
        shown = np.array([place[item] for item in answer.items])
        choices = {"online": shown, "frozen": chosen(self.frozen, asked), "best": np.argsort(-truth)[:SHOWN], "blind": np.arange(SHOWN)}
        for name, choice in choices.items():
            interval.sums[name] = interval.sums.get(name, 0.0) + float(truth[choice].mean())
        interval.requests += 1
        interval.generation, interval.sequence = answer.generation, answer.sequence
        if at >= (1 - KEPT) * self.world.seconds - 2 * INTERVAL:
            self.kept.append((asked, at))
        self._log(truth[shown], answer, user, context, n)

    def _log(self, truth: NDArray[np.float64], answer: Any, user: int, context: dict[str, int], n: int) -> None:
        ts = now()
        for position, (item, clicked) in enumerate(zip(answer.items, self.world.clicks(truth), strict=True)):
            self.events.send(Impression(request=n, user=user, item=item, ts=ts, position=position, features=dict(context),
                                        score=float(answer.scores[position]), generation=answer.generation))  # fmt: skip
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
