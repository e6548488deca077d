"""The models of a server: one, or the arms and shadows of an experiment, each followed by itself.

    arms = Arms.of(settings.folder, settings.source, settings.experiment, build)
    dealt = arms.deal(requests)                      a Dealt a request: who answers it, under which id
    arms.shadowed(dealt[0])                          who else is asked, without being heard

Arms that share a folder (an A/A test) share its state. A request may name features that only some arms know: each is given those it knows,
and a feature that none knows is refused as ever.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from prerank.config import nearest
from prerank.serving.experiment import Contender, Experiment
from prerank.serving.follow import Mirror, open_source
from prerank.serving.live import Live
from prerank.serving.messages import Id, MessageError, Request
from prerank.serving.scorer import Builder


@dataclass(frozen=True, slots=True)
class Member:
    """A model that is served. name: of the arm or shadow; None: there is no experiment."""

    name: str | None
    live: Live


class Dealt(NamedTuple):
    """A request, what it is known by (None: it has no id and needs none), and who answers it."""

    request: Request
    id: Id | None
    member: Member


class Arms:
    """See the module's first lines.

    members, shadows   who answers, and who is asked without being heard
    lives              each state once
    naming             whether requests that bring no id are given one: for the log
    """

    def __init__(self, members: Sequence[Member], shadows: Sequence[Member] = (), experiment: Experiment | None = None,
                 naming: bool = False) -> None:  # fmt: skip
        self.members, self.shadows, self.experiment = tuple(members), tuple(shadows), experiment
        self.lives = tuple({id(m.live): m.live for m in (*members, *shadows)}.values())
        self._by_name = {m.name: m for m in members}
        self._naming = naming or experiment is not None
        self._prefix, self._numbers = secrets.token_hex(8), itertools.count()

    @classmethod
    def of(cls, folder: Path | None, source: str | None, experiment: Experiment | None, build: Builder, naming: bool = False) -> Arms:
        """Raises GenerationError, naming the arm, where one has nothing to serve."""
        if experiment is None:
            assert folder is not None, "a folder, or an experiment"
            return cls([Member(None, _live(folder, source, build))], naming=naming)
        lives: dict[Path, Live] = {}

        def member(one: Contender) -> Member:
            place = one.folder.resolve()
            if place not in lives:
                lives[place] = _live(one.folder, one.source, build)
            return Member(one.name, lives[place])

        return cls([member(a) for a in experiment.arms], [member(s) for s in experiment.shadow], experiment, naming)

    def deal(self, requests: Sequence[Request]) -> list[Dealt]:
        """Who answers which request, and under which id. Raises MessageError for an arm that may not be asked for, or is none."""
        if self.experiment is None:
            (only,) = self.members
            for i, request in enumerate(requests):
                if request.arm is not None:
                    raise MessageError("there is no experiment, and so no arm", _where(i, len(requests), "arm"))
            return [Dealt(r, self._named(r), only) for r in requests]
        return [self._dealt(self.experiment, r, i, len(requests)) for i, r in enumerate(requests)]

    def known(self, request: Request, member: Member) -> Request:
        """The request with the features that this one's model knows, or that none knows, which it refuses."""
        if len(self.lives) == 1 or not (request.features or request.context):
            return request
        own = member.live.scorer.features
        every = frozenset().union(*(live.scorer.features for live in self.lives))

        def kept(given: dict[str, object]) -> dict[str, object]:
            return {name: value for name, value in given.items() if name in own or name not in every}

        return msgspec.structs.replace(request, features=kept(request.features), context=kept(request.context))

    def _dealt(self, experiment: Experiment, request: Request, i: int, n: int) -> Dealt:
        name = self._named(request)
        assert name is not None
        if request.arm is None:
            return Dealt(request, name, self._by_name[experiment.arm_of(name if request.user is None else request.user)])
        if not experiment.allow_forced:
            raise MessageError(f"experiment '{experiment.name}' does not allow requests to choose it", _where(i, n, "arm"))
        if request.arm not in self._by_name:
            raise MessageError(f"no arm '{request.arm}'{nearest(request.arm, [m.name or '' for m in self.members])}", _where(i, n, "arm"))
        return Dealt(request, name, self._by_name[request.arm])

    def _named(self, request: Request) -> Id | None:
        """Its own id, or one that no other request of any server has."""
        if request.request is not None or not self._naming:
            return request.request
        return f"{self._prefix}-{next(self._numbers)}"


def _live(folder: Path, source: str | None, build: Builder) -> Live:
    return Live(folder, build, None if source is None else Mirror(open_source(source), folder))


def _where(i: int, n: int, field: str) -> str:
    return f"requests[{i}].{field}" if n > 1 else field
