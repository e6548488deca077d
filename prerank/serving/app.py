"""The HTTP face: POST /score, /events, /items and /users, GET /health, /metrics, /schema, and an OpenAPI page at /docs.

The hot route reads the body, decodes it with msgspec (messages.py) and scores it where it stands, in the event loop: a
thousand candidates take less than handing them to a thread would. Large requests go to a thread, so that health checks
never wait for them. A client's fault is 400, 401, 413 or 422 with a JSON body that names the field, never a 500.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, MediaType, Response, get, post
from litestar import Request as HTTPRequest
from litestar.background_tasks import BackgroundTask
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.exceptions import HTTPException, NotAuthorizedException
from litestar.handlers import BaseRouteHandler

from prerank.serving import messages
from prerank.serving.documentation import ScoreOperation, describe, openapi
from prerank.serving.entities import routes
from prerank.serving.measures import TEXT
from prerank.serving.messages import MEDIA, Format, MessageError, Problem
from prerank.serving.reception import route
from prerank.serving.scorer import Builder
from prerank.serving.service import Service, Settings

INLINE = 4_000.0  # microseconds of scoring in the event loop (20,000 candidates by MaxSim); what takes longer goes to a thread

log = logging.getLogger("prerank.serving")


def create(settings: Settings, build: Builder) -> Litestar:
    """The ASGI application. Raises GenerationError when there is no generation to serve, ValueError for a log's wrong address."""
    service = Service(settings, build)
    arms, desk, measures = service.arms, service.desk, service.measures

    @asynccontextmanager
    async def running(_: Litestar) -> AsyncIterator[None]:
        async with service.running():
            yield

    @post("/score", status_code=200, operation_class=ScoreOperation)
    async def score(request: HTTPRequest[Any, Any, Any]) -> Response[bytes]:
        """Order candidates for a user, or for each user of a batch."""
        start = time.perf_counter()
        format = _format(request.headers.get("content-type", ""))
        status, background = 200, None
        try:
            body = await request.body()
            received = messages.decode(body, format, limit=settings.candidate_limit)
            dealt = arms.deal(received)
            inline = desk.microseconds(dealt) <= INLINE
            answered = desk.answer(dealt) if inline else await asyncio.to_thread(desk.answer, dealt)
            measures.scored(answered)
            content = messages.encode(desk.message(answered, messages.is_batch(received)), format)
            background = service.afterwards(answered, time.perf_counter() - start)
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
        return Response(content, status_code=status, media_type=MEDIA[format], background=_later(background))

    @get("/health", opt={"open": True})
    async def health() -> dict[str, Any]:
        """Whether it answers, and from which generation."""
        return service.health()

    @get("/metrics", media_type=MediaType.TEXT)
    async def metrics() -> Response[bytes]:
        """Counters in Prometheus' text format."""
        return Response(measures.page(), media_type=TEXT)

    @get("/schema")
    async def schema() -> dict[str, Any]:
        """What a request may carry: user features, context features, kinds of ids, objectives, limits."""
        generation = service.live.scorer.generation
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

    events = route(service.recorder, lambda: service.live.scorer.generation.schema)
    app = Litestar(
        [score, health, metrics, schema, events, *routes(arms, service.noted)],
        lifespan=[running],
        guards=[_guard(settings.token)] if settings.token else [],
        request_max_body_size=settings.body_limit,
        exception_handlers={HTTPException: _refused, Exception: _failed},
        openapi_config=openapi(secured=settings.token is not None),
        logging_config=None,
        state=State({"service": service}),
    )
    return describe(app)


def _later(done: Callable[[], None] | None) -> BackgroundTask | None:
    """What is done once the answer is sent, in the event loop: it takes microseconds, a thread would take more."""
    if done is None:
        return None

    async def task() -> None:
        done()

    return BackgroundTask(task)


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
