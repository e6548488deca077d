"""A small client of the server: `Client("http://127.0.0.1:8080").score(user=42, candidates=[7, 8, 9], k=2)`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import httpx
import msgspec
import numpy as np
from numpy.typing import NDArray

from prerank.serving.messages import MEDIA, BatchResponse, Format, Id, Problem, Request, ScoreResponse
from prerank.stream import Event, encode


class ClientError(ValueError):
    """The server refused, or did not answer. `status` is None when nothing came back; `field` names what it refused."""

    def __init__(self, message: str, status: int | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.status, self.field = status, field


class Client:
    """Talks to one server over kept-alive connections; safe to share between threads.

    token     bearer token, when the server asks for one
    format    json, or msgpack: less to send and to parse; integer candidates then travel as one bin, answers are arrays
    """

    def __init__(
        self, url: str = "http://127.0.0.1:8080", token: str | None = None, *, format: Format = "json", timeout: float = 30.0
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.url, self.format = url, format
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)

    def score(self, candidates: Sequence[Id] | NDArray[np.int64], *, user: Id | None = None, k: int | None = None,
              features: Mapping[str, Any] | None = None, context: Mapping[str, Any] | None = None,
              bids: Sequence[float] | NDArray[np.floating] | None = None, objective: str | None = None, request: Id | None = None,
              log: bool = True, arm: str | None = None) -> ScoreResponse:  # fmt: skip
        """Order candidates for one user; see `messages.Request`. Raises ClientError."""
        asked = Request(
            candidates=self._ids(candidates), user=user, k=k, features=dict(features or {}), context=dict(context or {}),
            bids=self._bids(bids), objective=objective, request=request, log=log, arm=arm,
        )  # fmt: skip
        return _unpacked(self._post(_sent(asked), ScoreResponse))

    def score_many(self, requests: Sequence[Request]) -> BatchResponse:
        """Several users in one call: the user tower runs once for all. Raises ClientError."""
        packed = [msgspec.structs.replace(r, candidates=self._ids(r.candidates or []), bids=self._bids(r.bids)) for r in requests]
        answer: BatchResponse = self._post({"requests": [_sent(r) for r in packed]}, BatchResponse)
        answer.responses = [_unpacked(r) for r in answer.responses]
        return answer

    def send(self, events: Sequence[Event]) -> dict[str, Any]:
        """Events into the server's log, durable when this returns: how many it took, and which it did not. Raises ClientError."""
        content = b"[" + b",".join(map(encode, events)) + b"]"
        told: dict[str, Any] = msgspec.json.decode(self._send("POST", "/events", content=content).content)
        return told

    def health(self) -> dict[str, Any]:
        """What the server says of itself. Raises ClientError."""
        return self._get("/health")

    def schema(self) -> dict[str, Any]:
        """What a request may carry. Raises ClientError."""
        return self._get("/schema")

    def wait_until_ready(self, seconds: float = 60.0) -> dict[str, Any]:
        """Ask for health until it answers. Raises ClientError when the time is up."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.health()
            except ClientError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _ids(self, candidates: Any) -> Any:
        """Integers become one bin in MessagePack; JSON takes lists."""
        if isinstance(candidates, bytes):
            return candidates
        if self.format == "msgpack" and len(candidates):
            array = np.asarray(candidates)
            if array.dtype.kind in "iu":
                return array.astype("<i8").tobytes()
        return candidates.tolist() if isinstance(candidates, np.ndarray) else list(candidates)

    def _bids(self, bids: Any) -> Any:
        if bids is None or isinstance(bids, bytes):
            return bids
        return np.asarray(bids, "<f4").tobytes() if self.format == "msgpack" else np.asarray(bids, float).tolist()

    def _post(self, message: dict[str, Any], answer: type[Any]) -> Any:
        codec: Any = msgspec.json if self.format == "json" else msgspec.msgpack
        response = self._send("POST", "/score", content=codec.encode(message), headers={"Content-Type": MEDIA[self.format]})
        return codec.decode(response.content, type=answer)

    def _get(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self._send("GET", path).content)
        return found

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise ClientError(f"server {self.url}: {str(error) or type(error).__name__}") from None
        if response.is_success:
            return response
        try:
            problem = msgspec.json.decode(response.content, type=Problem)
        except msgspec.MsgspecError:
            problem = Problem(response.reason_phrase)
        said = f"{problem.field}: {problem.detail}" if problem.field else problem.detail
        raise ClientError(f"server {self.url} answered {response.status_code}: {said}", response.status_code, problem.field)


def _sent(request: Request) -> dict[str, Any]:
    """Only what was given."""
    found = {k: v for k in request.__struct_fields__ if (v := getattr(request, k)) not in (None, {})}
    if request.log:
        del found["log"]
    return found


def _unpacked(response: Any) -> Any:
    """Bins as arrays: items int64, the rest float32."""
    if isinstance(response.items, bytes):
        response.items, response.missing = np.frombuffer(response.items, "<i8"), np.frombuffer(response.missing, "<i8")
        response.scores = np.frombuffer(response.scores, "<f4")
        for part in (response.probabilities, response.logits):
            part.update({t: np.frombuffer(v, "<f4") for t, v in part.items()})
    return response
