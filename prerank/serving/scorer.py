"""Candidates scored for a user: user columns, the user tower once, then one pass over the stored items.

    scorer = Scorer(open_current("generations"), build)
    scorer.score([Request(user=42, candidates=[7, 8, 9])])      -> [Response]

It holds one generation for good; a server that learns of a new one makes a new scorer and swaps it in between requests.
Unknown items are listed. No item network runs, unless the generation is a ranker's: then all of it does, for every candidate.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prerank.batch import PairRanker, PreRanker
from prerank.config import nearest
from prerank.index import IdError, top_k
from prerank.serving.calibration import sigmoid
from prerank.serving.cost import us_per_candidate
from prerank.serving.folding import folded
from prerank.serving.generation import Generation, GenerationError
from prerank.serving.head_items import HeadItems
from prerank.serving.memory import OutsideMemory
from prerank.serving.messages import Id, MessageError, Request, Response, bids, ids
from prerank.serving.ranked_items import RankedItems
from prerank.serving.users import User, Users, encode
from prerank.store import StoreError

AGAIN = 8  # users for whom a tape is compared with torch, of a model that differs in its weights alone from one that was served

Builder = Callable[[dict[str, Any]], nn.Module]  # meta.json as a dict (model, schema, sizes) -> the model with fresh weights


def loaded(generation: Generation, build: Builder, like: nn.Module | None = None) -> nn.Module:
    """The model with the generation's weights, which it shares: nobody writes to either. Raises GenerationError.

    like   a loaded model of the same shape, which is then not built anew
    """
    if like is None:
        model = build(msgspec.to_builtins(generation.meta)).eval().requires_grad_(False)
    else:
        model = copy.deepcopy(like, {id(t): t for t in (*like.parameters(), *like.buffers())})
    try:
        model.load_state_dict(generation.weights, assign=True)
    except RuntimeError as error:
        why = str(error).splitlines()[-1].strip()
        raise GenerationError(f"generation '{generation.folder}': weights do not fit the model: {why}") from None
    return model.requires_grad_(False)


class _Asked(NamedTuple):
    """What a request wants ordered: ids, their rows [C] (-1: unknown), bids [C] or None, and by which objective."""

    candidates: list[Id] | NDArray[np.int64]
    rows: NDArray[np.int64]
    bids: NDArray[np.float32] | None
    objective: int


class Scorer:
    """See the module's first lines. Safe to call from several threads.

    features   names that a request may give values of
    cost     microseconds a candidate where a head or a ranker scores them, measured here; None: MaxSim, a tenth or so
    """

    def __init__(self, generation: Generation, build: Builder, plain: nn.Module | None = None) -> None:
        """Raises GenerationError when the built model does not take the generation's weights or head groups.

        plain   the model with the generation's weights (`loaded`), where there is one already
        """
        self.generation = generation
        self.plain = loaded(generation, build) if plain is None else plain
        self.objectives = tuple(generation.meta.objectives)
        self.features = frozenset(f.name for f in generation.schema.on("user"))
        self._ranked: RankedItems | None = None
        self._by_head: HeadItems | None = None
        try:
            self._memory = OutsideMemory.of(self.plain, generation.schema.user_id)
        except StoreError as error:
            raise GenerationError(f"generation '{generation.folder}': {error}") from None
        self._users = Users(generation, self._memory)
        model: Any = self._quicker(self.plain if self._memory is None else self._memory.detached(self.plain))
        if generation.meta.ranker:
            self._ranked = RankedItems(model, generation.columns, len(self.objectives))
        else:
            self._users.learn(model, 64 if plain is None else AGAIN)
        if generation.meta.scoring == "head":
            self._by_head = HeadItems(model.head, generation.items)
        self.cost = None if generation.meta.scoring == "maxsim" else us_per_candidate(self._of_nobody, len(generation.items))

    @property
    def cold(self) -> list[str]:
        """Why memories outside the generation have nothing to tell; empty: all is well."""
        return [] if self._memory is None else self._memory.cold

    @property
    def waits(self) -> bool:
        """Whether a request reads over a network: not in an event loop."""
        return self._memory is not None and self._memory.waits

    def look(self) -> None:
        """Where a memory was away, look whether it is back."""
        if self._memory is not None:
            self._memory.look()

    def told(self) -> str | None:
        """One line on how candidates are scored and what one costs; None: by MaxSim."""
        if self.cost is None:
            return None
        how = "a ranker, which runs for every candidate" if self.generation.meta.ranker else "a head that reads every pair"
        return f"generation {self.generation.meta.number} scores by {how}: {self.cost:.1f} us each"

    def score(self, requests: Sequence[Request]) -> list[Response]:
        """One response a request; the user tower runs once for all of them. Raises MessageError naming the field."""
        return [response for response, _ in self.answer(requests)]

    def answer(self, requests: Sequence[Request], where: Sequence[str] | None = None) -> list[tuple[Response, User]]:
        """The same, each with the user as it was served.

        where   what stands before a field that an error names, one a request
        """
        where = where or [f"requests[{i}]." if len(requests) > 1 else "" for i in range(len(requests))]
        asked = [self._asked(r, w) for r, w in zip(requests, where, strict=True)]
        users = [self._users.of(r, w) for r, w in zip(requests, where, strict=True)]
        users, versions = self._remembered(users)
        found = self._logits(users, [a.rows for a in asked])
        responses = [self._response(r, a, z, u) for r, a, z, u in zip(requests, asked, found, users, strict=True)]
        for response, version in zip(responses, versions, strict=False):
            response.memory = version
        return list(zip(responses, users, strict=True))

    def _remembered(self, users: list[User]) -> tuple[list[User], list[dict[str, int]]]:
        """Users with what is remembered of them outside the generation, and which versions that is; none: it holds its memory itself."""
        if self._memory is None:
            return users, []
        ids = np.concatenate([u.columns[self.generation.schema.user_id] for u in users])
        columns, versions = self._memory.read(torch.from_numpy(ids).long())
        made = {name: column.numpy() for name, column in columns.items()}
        return [u._replace(columns={**u.columns, **{n: c[i : i + 1] for n, c in made.items()}}) for i, u in enumerate(users)], versions

    def _logits(self, users: Sequence[User], rows: Sequence[NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        """Each user's candidates by their rows [C] -> logits [C, T], NaN where unknown."""
        if self._ranked is not None:
            return [self._ranked.score(u.columns, r) for u, r in zip(users, rows, strict=True)]
        items = self.generation.items if self._by_head is None else self._by_head
        vectors, biases = self._users.vectors(users)
        return [items.score(*one) for one in zip(vectors, biases, rows, strict=True)]

    def _of_nobody(self, rows: NDArray[np.int64]) -> list[NDArray[np.float32]]:
        user = self._users.of(Request(), "")
        if self._memory is not None:
            user.columns.update({name: column.numpy() for name, column in self._memory.nobody(1).items()})
        return self._logits([user], [rows])

    def _asked(self, request: Request, where: str) -> _Asked:
        objective = self.objectives[0] if request.objective is None else request.objective
        if objective not in self.objectives:
            raise MessageError(f"unknown objective '{objective}'{nearest(objective, self.objectives)}", f"{where}objective")
        candidates, prices = ids(request), bids(request)
        if prices is not None and objective not in self.generation.calibrators:
            raise MessageError(
                f"ordering by eCPM needs a calibrator for '{objective}', generation {self.generation.meta.number} has none "
                "(export with validation rows)", f"{where}bids")  # fmt: skip
        try:
            rows = self.generation.item_ids.rows(candidates)
        except IdError as error:
            raise MessageError(str(error), f"{where}candidates") from None
        return _Asked(candidates, rows, prices, self.objectives.index(objective))

    def _response(self, request: Request, asked: _Asked, logits: NDArray[np.float32], user: User) -> Response:
        """Order the candidates by their logits [C, T], and say what was not known."""
        calibrators, objective = self.generation.calibrators, self.objectives[asked.objective]
        values: NDArray[Any] = logits[:, asked.objective]  # a calibrator never changes the order by probability
        if asked.bids is not None:
            values = calibrators[objective](values) * asked.bids
        rows = asked.rows
        order = top_k(values, min(request.k or len(rows), len(rows)))
        best = logits.take(order, 0)  # [k, T]
        binary, raw, probabilities, scores = isinstance(request.candidates, bytes), {}, {}, None
        for t, name in enumerate(self.objectives):
            z = best[:, t]
            p = calibrators[name](z) if name in calibrators else sigmoid(z)
            raw[name], probabilities[name] = _numbers(z, binary), _numbers(p, binary)
            if t == asked.objective:
                scores = probabilities[name] if asked.bids is None else _numbers(p * asked.bids[order], binary)
        return Response(_pick(asked.candidates, order), scores, probabilities, raw, _pick(asked.candidates, np.flatnonzero(rows < 0)),
                        user.unknown, user.missing)  # fmt: skip

    def _quicker(self, model: nn.Module) -> nn.Module:
        """The model, BatchNorm folded."""
        generation = self.generation
        if generation.meta.ranker:
            return folded(model, self._few_pairs())
        preranker: PreRanker = model  # type: ignore[assignment]
        groups = [(g.user_heads, g.item_heads, g.width, g.objective) for g in preranker.head.groups]
        if groups != [tuple(g) for g in generation.meta.groups]:
            expected = generation.meta.groups
            raise GenerationError(f"generation '{generation.folder}': head groups must be {expected}, the model has {groups}")
        sample = self._users.sample()
        return folded(model, lambda m: encode(m, sample).flat())

    def _few_pairs(self, rows: int = 64) -> Callable[[nn.Module], Tensor]:
        """A ranker -> its logits of a few stored pairs, on which folding is checked."""
        users = self._users.sample(rows)
        items = {name: torch.from_numpy(np.array(column[:rows])) for name, column in self.generation.columns.items()}
        of_users, of_items = (len(next(iter(side.values()))) for side in (users, items))
        pair = torch.arange(max(of_users, of_items))

        def logits(model: nn.Module) -> Tensor:
            ranker: PairRanker = model  # type: ignore[assignment]
            return ranker.pairs(users, items, pair % of_users, pair % of_items)[0]

        return logits

    def __repr__(self) -> str:
        return f"<Scorer of {self.generation!r}>"


def _pick(candidates: list[Any] | NDArray[np.int64], positions: NDArray[np.int64]) -> Any:
    if isinstance(candidates, np.ndarray):
        return candidates[positions].tobytes()
    return [candidates[i] for i in positions.tolist()]


def _numbers(values: NDArray[Any] | Tensor, binary: bool) -> Any:
    """A list, or one bin of little-endian float32."""
    array = np.asarray(values, "<f4")
    return array.tobytes() if binary else array.tolist()
