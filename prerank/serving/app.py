"""The HTTP face: POST /score, /items and /users, GET /health, /metrics, /schema, and an OpenAPI page at /docs.

The hot route reads the body, decodes it with msgspec (messages.py) and scores it where it stands, in the event loop: a
thousand candidates take less than handing them to a thread would. Large requests go to a thread, so that health checks
never wait for them. A client's fault is 400, 401, 413 or 422 with a JSON body that names the field, never a 500.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litestar import Litestar, MediaType, Response, get, post
from litestar import Request as HTTPRequest
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.exceptions import HTTPException, NotAuthorizedException
from litestar.handlers import BaseRouteHandler

from prerank import __version__
from prerank.serving import messages
from prerank.serving.documentation import ScoreOperation, describe, openapi
from prerank.serving.entities import routes
from prerank.serving.follow import Mirror, open_source
from prerank.serving.live import Live
from prerank.serving.measures import TEXT, Measures
from prerank.serving.messages import MEDIA, BatchResponse, Format, MessageError, Problem, ScoreResponse
from prerank.serving.scorer import Builder

INLINE = 20_000  # candidates that are scored in the event loop (a few ms); more go to a thread
PER_USER = 200  # candidates that a user of a batch is as dear as: its features, its tower, its response
MAXSIM = 0.2  # microseconds of a candidate scored by MaxSim: what INLINE counts in

log = logging.getLogger("prerank.serving")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the server is told; picklable, so that workers can be given it."""

    folder: Path  # of generations, or one generation
    token: str | None = None  # bearer token that every route but /health asks for
    body_limit: int = 8_000_000  # bytes; more is 413
    candidate_limit: int = 100_000  # of a request, batches summed up; more is 422
    follow_seconds: float = 1.0  # between two looks for a new generation; 0: never
    source: str | None = None  # url that generations and deltas come from (follow.py); None: they are written into the folder


def opened(settings: Settings, build: Builder) -> Live:
    """The state in force. Raises GenerationError."""
    mirror = None if settings.source is None else Mirror(open_source(settings.source), settings.folder)
    return Live(settings.folder, build, mirror)


def create(settings: Settings, build: Builder) -> Litestar:
    """The ASGI application. Raises GenerationError when there is no generation to serve."""
    live, measures = opened(settings, build), Measures()

    def changed(swapped: bool = True) -> None:
        if swapped:
            generation = live.scorer.generation
            measures.generation.set(generation.meta.number)
            measures.sequence.set(generation.sequence)
            measures.posts.set(generation.posts)
        else:
            measures.failed_reloads.inc()

    changed()

    @asynccontextmanager
    async def following(_: Litestar) -> AsyncIterator[None]:
        task = asyncio.create_task(live.follow(settings.follow_seconds, changed)) if settings.follow_seconds else None
        yield
        if task is not None:
            task.cancel()

    @post("/score", status_code=200, operation_class=ScoreOperation)
    async def score(request: HTTPRequest[Any, Any, Any]) -> Response[bytes]:
        """Order candidates for a user, or for each user of a batch."""
        start = time.perf_counter()
        format = _format(request.headers.get("content-type", ""))
        status = 200
        try:
            body = await request.body()
            received = messages.decode(body, format, limit=settings.candidate_limit)
            scorer = live.scorer
            count = sum(len(r.candidates or ()) for r in received)
            dear = 1 if scorer.cost is None else max(1, scorer.cost / MAXSIM)
            inline = count * dear + PER_USER * len(received) <= INLINE
            responses = scorer.score(received) if inline else await asyncio.to_thread(scorer.score, received)
            state = scorer.generation
            number = state.meta.number
            measures.scored(received, responses, cold=bool(scorer.cold))
            if messages.is_batch(received):
                content = messages.encode(BatchResponse(number, responses, state.sequence, state.posts), format)
            else:
                content = messages.encode(ScoreResponse.of(number, responses[0], state.sequence, state.posts), format)
        except MessageError as error:
            status = 400 if error.field is None else 422
            content, format = messages.encode(Problem(error.message, error.field), "json"), "json"
        except HTTPException as error:
            measures.requests.labels(error.status_code).inc()
            if error.status_code == 413:
                error.detail = f"body must be at most {settings.body_limit} bytes"
            raise
        measures.requests.labels(status).inc()
        measures.seconds.observe(time.perf_counter() - start)
        return Response(content, status_code=status, media_type=MEDIA[format])

    @get("/health", opt={"open": True})
    async def health() -> dict[str, Any]:
        """Whether it answers, and from which generation."""
        generation = live.scorer.generation
        meta = generation.meta
        state = {"generation": meta.number, "sequence": generation.sequence, "posts": generation.posts}
        size = {"items": meta.items, "users": meta.users}
        cold = live.scorer.cold
        status = {"status": "degraded", "why": cold} if cold else {"status": "ok"}
        return {**status, **state, "name": meta.name, **size, "version": __version__}

    @get("/metrics", media_type=MediaType.TEXT)
    async def metrics() -> Response[bytes]:
        """Counters in Prometheus' text format."""
        return Response(measures.page(), media_type=TEXT)

    @get("/schema")
    async def schema() -> dict[str, Any]:
        """What a request may carry: user features, context features, kinds of ids, objectives, limits."""
        generation = live.scorer.generation
        return {
            "generation": generation.meta.number,
            "objectives": list(generation.meta.objectives),
            "calibrated": sorted(generation.calibrators),
            "user_id": "integer" if generation.user_ids.integer else "string",
            "item_id": "integer" if generation.item_ids.integer else "string",
            "features": [_feature(f) for f in generation.schema.on("user") if f.side == "user"],
            "context": [_feature(f) for f in generation.schema.on("user") if f.side == "context"],
            "limits": {"body_bytes": settings.body_limit, "candidates": settings.candidate_limit},
        }

    app = Litestar(
        [score, health, metrics, schema, *routes(live, changed)],
        lifespan=[following],
        guards=[_guard(settings.token)] if settings.token else [],
        request_max_body_size=settings.body_limit,
        exception_handlers={HTTPException: _refused, Exception: _failed},
        openapi_config=openapi(secured=settings.token is not None),
        logging_config=None,
        state=State({"live": live}),
    )
    return describe(app)


def _format(content_type: str) -> Format:
    return "msgpack" if "msgpack" in content_type else "json"


def _feature(feature: Any) -> dict[str, Any]:
    return {"name": feature.name, "kind": feature.kind, **({"max_length": feature.max_length} if feature.many else {})}


def _guard(token: str) -> Any:
    expected = f"Bearer {token}".encode()

    def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        given = connection.headers.get("authorization", "").encode()
        if not handler.opt.get("open") and not hmac.compare_digest(given, expected):
            raise NotAuthorizedException("a bearer token is required, or the one given is wrong")

    return guard


def _refused(_: HTTPRequest[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """404, 405, 401, 413: one JSON shape for all."""
    headers = {"WWW-Authenticate": "Bearer"} if error.status_code == 401 else None
    return _problem(error.detail, error.status_code, headers)


def _failed(_: HTTPRequest[Any, Any, Any], error: Exception) -> Response[bytes]:
    """A bug of ours: the log has the traceback, the client a line."""
    log.error("request failed", exc_info=error)
    return _problem("internal error; the server's log says more", 500)


def _problem(detail: str, status: int, headers: dict[str, str] | None = None) -> Response[bytes]:
    return Response(messages.encode(Problem(detail), "json"), status_code=status, media_type=MEDIA["json"], headers=headers)
