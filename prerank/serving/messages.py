"""What goes over the wire: decoding is validating, in JSON or MessagePack; the same structs document the API.

    POST /score   {"user": 42, "candidates": [7, 8, 9], "k": 2, "context": {"tab": 1}}
                  {"generation": 3, "items": [9, 7], "scores": [0.31, 0.22], ...}
    a batch       {"requests": [{...}, {...}]}   ->   {"generation": 3, "responses": [{...}, {...}]}

In MessagePack `candidates` may be one bin of little-endian int64, and `bids` one of float32: 1,000 ids then cost 0.2 us to
read instead of 20, and the response's arrays come as bins too (items int64, the rest float32).
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

Format = Literal["json", "msgpack"]
Id = int | str
LONGEST = 300  # letters of an error message
LONGEST_ID = 1024  # bytes of a request's own id: what an event takes
MEDIA: dict[Format, str] = {"json": "application/json", "msgpack": "application/msgpack"}


class MessageError(ValueError):
    """A body that cannot be read (field None: 400), or a field that breaks a rule (422)."""

    def __init__(self, message: str, field: str | None = None) -> None:
        if len(message) > LONGEST:  # it repeats what came, which may be an id of a million letters
            message = f"{message[: LONGEST - 3]}..."
        super().__init__(f"{field}: {message}" if field else message)
        self.message, self.field = message, field


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """One user and the candidates to order for it.

    candidates   item ids (in MessagePack also one bin of little-endian int64)
    user         user id; its stored features are used. None or unknown: the cold user
    features     raw user features, by name; they override what is stored
    context      raw features of the request itself (those of side context)
    k            how many of the best to return; None: all
    bids         one a candidate; given, the order is by probability x bid (eCPM)
    objective    which objective's probability orders; None: the first
    request      what the answer, and all that is logged of it, is known by; None: the server makes one up
    log          false: nothing of it is logged
    arm          of the experiment, for tests; only where the experiment allows it
    """

    candidates: list[Id] | bytes | None = None
    user: Id | None = None
    features: dict[str, Any] = {}
    context: dict[str, Any] = {}
    k: int | None = None
    bids: list[float] | bytes | None = None
    objective: str | None = None
    request: Id | None = None
    log: bool = True
    arm: str | None = None


class ScoreRequest(Request, forbid_unknown_fields=True):
    """One request, or a batch of them under `requests`."""

    requests: list[Request] | None = None


class Response(msgspec.Struct):
    """The best candidates, best first.

    items               ids
    scores              what orders: probability, or probability x bid
    probabilities       by objective, in the order of items; calibrated when the generation has a calibrator
    logits              by objective, as the model gives them
    missing             candidates that the generation does not know
    unknown_user        the user's id is not in the generation's table; the cold vector was used
    missing_features    user features that were neither stored nor given, and stand as missing
    request             the request's id, where it has one
    experiment, arm     who answered, of an experiment
    memory              by cache, how many vectors were blended into the user's memory, where it lies outside the generation; {}: not read
    generation, sequence, posts   of the answer in a batch of an experiment, whose answers may be of several arms
    """

    items: Any
    scores: Any
    probabilities: dict[str, Any]
    logits: dict[str, Any]
    missing: Any
    unknown_user: bool
    missing_features: list[str]
    request: Id | UnsetType = UNSET
    experiment: str | UnsetType = UNSET
    arm: str | UnsetType = UNSET
    memory: dict[str, int] | UnsetType = UNSET
    generation: int | UnsetType = UNSET
    sequence: int | UnsetType = UNSET
    posts: int | UnsetType = UNSET


class ScoreResponse(Response, kw_only=True):
    """Response, and the state that gave it: one for all of a response.

    generation   its number
    sequence     deltas of it that were applied
    posts        changes by POST and DELETE that were applied, counted from the first
    """

    generation: int
    sequence: int = 0
    posts: int = 0

    @classmethod
    def of(cls, generation: int, response: Response, sequence: int = 0, posts: int = 0) -> ScoreResponse:
        own = {f: getattr(response, f) for f in Response.__struct_fields__}
        return cls(**{**own, "generation": generation, "sequence": sequence, "posts": posts})


class BatchResponse(msgspec.Struct):
    """Responses in the order of the requests, and the state that gave them all (see ScoreResponse); 0: each tells its own."""

    generation: int
    responses: list[Response]
    sequence: int = 0
    posts: int = 0


class Problem(msgspec.Struct):
    """Why a request was refused: what is wrong and, where there is one, the field."""

    detail: str
    field: str | None = None


_DECODE: dict[Format, Any] = {"json": msgspec.json.Decoder(ScoreRequest), "msgpack": msgspec.msgpack.Decoder(ScoreRequest)}
_ENCODE: dict[Format, Any] = {"json": msgspec.json.Encoder(), "msgpack": msgspec.msgpack.Encoder()}
_PATH = re.compile(r"^(?P<message>.*?)(?: - at `(?P<path>.*)`)?$", re.DOTALL)


def decode(body: bytes, format: Format, *, limit: int) -> list[Request]:
    """Body -> its requests. Raises MessageError; `limit` is the most candidates that all of them may have together."""
    try:
        message = _DECODE[format].decode(body)
    except msgspec.ValidationError as error:
        found = _PATH.match(str(error))
        assert found is not None
        raise MessageError(found["message"], (found["path"] or "$").removeprefix("$").lstrip(".") or "body") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"body is not valid {format}: {error}") from None
    if message.requests is None:
        requests: list[Request] = [message]
    elif message.candidates is not None:
        raise MessageError("give either requests or candidates, not both", "requests")
    elif not message.requests:
        raise MessageError("must hold at least one request, got none", "requests")
    else:
        requests = message.requests
    total = 0
    for i, request in enumerate(requests):
        total += _check(request, f"requests[{i}]." if message.requests else "")
    if total > limit:
        raise MessageError(f"must be at most {limit} in all, got {total}", "candidates")
    return requests


def is_batch(requests: list[Request]) -> bool:
    """True when the body held a batch (even one of a single request): the response then is a BatchResponse."""
    return not isinstance(requests[0], ScoreRequest)


def ids(request: Request) -> list[Id] | NDArray[np.int64]:
    """Candidates as a list, or as an array when they came as one bin."""
    assert request.candidates is not None
    return np.frombuffer(request.candidates, "<i8") if isinstance(request.candidates, bytes) else request.candidates


def bids(request: Request) -> NDArray[np.float32] | None:
    """Bids [C]."""
    if request.bids is None:
        return None
    if isinstance(request.bids, bytes):
        return np.frombuffer(request.bids, "<f4")
    with np.errstate(over="ignore"):  # a bid beyond float32 becomes infinite, and is refused
        return np.array(request.bids, np.float32)


def encode(message: Any, format: Format) -> bytes:
    """A response or problem -> body."""
    body: bytes = _ENCODE[format].encode(message)
    return body


def _check(request: Request, where: str) -> int:
    """The rules that types do not say. Returns the number of candidates."""
    if request.candidates is None:
        raise MessageError("is required", f"{where}candidates")
    n = len(request.candidates)
    if isinstance(request.candidates, bytes):
        if n % 8:
            raise MessageError(f"a bin must hold int64, 8 bytes an id; got {n} bytes", f"{where}candidates")
        n //= 8
    if n == 0:
        raise MessageError("must hold at least one id, got none", f"{where}candidates")
    if request.request is not None and not _id_fits(request.request):
        raise MessageError(f"must be an integer of 64 bits, or text of 1 to {LONGEST_ID} bytes", f"{where}request")
    if request.k is not None and request.k < 1:
        raise MessageError(f"must be at least 1, got {request.k}", f"{where}k")
    if request.bids is not None:
        size = len(request.bids) / (4 if isinstance(request.bids, bytes) else 1)
        if size != n:
            raise MessageError(f"must be one a candidate ({n}), got {size:g}", f"{where}bids")
        values = bids(request)
        assert values is not None
        if not (np.isfinite(values) & (values >= 0)).all():
            first = int(np.flatnonzero(~(np.isfinite(values) & (values >= 0)))[0])
            raise MessageError(f"must be finite and not negative, got {values[first]:g}", f"{where}bids[{first}]")
    return n


def _id_fits(id: Id) -> bool:
    """Whether an event can carry it."""
    return -(2**63) <= id < 2**63 if isinstance(id, int) else 0 < len(id.encode()) <= LONGEST_ID
