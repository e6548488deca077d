"""Requests in, answers out: each request goes to its arm, requests of one arm are scored together, nobody sees two states.

    desk = Desk(arms, measures)
    answered = desk.answer(arms.deal(requests))       an Answered a request: the response, and all that made it
    desk.message(answered, batch)                     what goes over the wire
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

from prerank.serving.arms import Arms, Dealt, Member
from prerank.serving.measures import Measures
from prerank.serving.messages import BatchResponse, Id, Request, Response, ScoreResponse
from prerank.serving.scorer import Scorer
from prerank.serving.users import User

MAXSIM = 0.2  # microseconds of a candidate scored by MaxSim
PER_USER = 40.0  # of a user of a batch: its features, its tower, its response


class Answered(NamedTuple):
    """A request as it came, its answer, and who gave it: a scorer of one state."""

    request: Request
    id: Id | None
    response: Response
    user: User
    scorer: Scorer
    member: Member


class Desk:
    """See the module's first lines. Safe to call from several threads."""

    def __init__(self, arms: Arms, measures: Measures) -> None:
        self.arms, self._measures = arms, measures

    def answer(self, dealt: Sequence[Dealt]) -> list[Answered]:
        """Raises MessageError naming the field."""
        found: dict[int, Answered] = {}
        for member in dict.fromkeys(d.member for d in dealt):
            places = [i for i, d in enumerate(dealt) if d.member is member]
            begun, scorer = time.perf_counter(), member.live.scorer
            where = [f"requests[{i}]." if len(dealt) > 1 else "" for i in places]
            answers = scorer.answer([self.arms.known(dealt[i].request, member) for i in places], where)
            for i, (response, user) in zip(places, answers, strict=True):
                self._sign(response, dealt[i], scorer)
                found[i] = Answered(dealt[i].request, dealt[i].id, response, user, scorer, member)
            if member.name is not None:
                self._measures.arm_requests.labels(member.name).inc(len(places))
                self._measures.arm_seconds.labels(member.name).observe(time.perf_counter() - begun)
        return [found[i] for i in range(len(dealt))]

    def microseconds(self, dealt: Sequence[Dealt]) -> float:
        """About how long they will take: whoever has no time for it hands them to a thread."""
        total = 0.0
        for request, _, member in dealt:
            if member.live.scorer.waits:
                return math.inf
            candidates = len(request.candidates or ()) // (8 if isinstance(request.candidates, bytes) else 1)
            total += candidates * max(MAXSIM, member.live.scorer.cost or 0.0) + PER_USER
        return total

    def message(self, answered: Sequence[Answered], batch: bool) -> ScoreResponse | BatchResponse:
        """One answer, or those of a batch."""
        state = answered[0].scorer.generation
        number, sequence, posts = state.meta.number, state.sequence, state.posts
        if not batch:
            return ScoreResponse.of(number, answered[0].response, sequence, posts)
        responses = [a.response for a in answered]
        return BatchResponse(number, responses, sequence, posts) if self.arms.experiment is None else BatchResponse(0, responses)

    def _sign(self, response: Response, dealt: Dealt, scorer: Scorer) -> None:
        """The request's id, and under an experiment who answered, from which state."""
        if dealt.id is not None:
            response.request = dealt.id
        if self.arms.experiment is not None:
            assert dealt.member.name is not None
            response.experiment, response.arm = self.arms.experiment.name, dealt.member.name
            state = scorer.generation
            response.generation, response.sequence, response.posts = state.meta.number, state.sequence, state.posts
