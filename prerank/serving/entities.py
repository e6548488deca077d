"""POST and DELETE /items, POST /users: what the server is told of items and users between two generations (posts.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from litestar import Request as HTTPRequest
from litestar import Response, delete, post
from litestar.handlers import HTTPRouteHandler

from prerank.index import IdError
from prerank.serving import messages
from prerank.serving.arms import Arms
from prerank.serving.messages import MEDIA, Id, MessageError, Problem
from prerank.serving.posts import Post, Side

MOST = 10_000  # items or users of a request
Noted = Callable[[], None]


class Entity(msgspec.Struct, forbid_unknown_fields=True):
    """An item or a user, and raw features by name; those that are not given are missing (an item's) or stay (a user's)."""

    id: Id
    features: dict[str, Any] = {}


class Accepted(msgspec.Struct):
    """How many changes were taken, and the state that has them."""

    accepted: int
    generation: int
    sequence: int
    posts: int


def routes(arms: Arms, changed: Noted) -> list[HTTPRouteHandler]:
    """The handlers. What is posted goes to every model that is served, or, where one refuses it, to none.

    changed   called after a change is in force
    """
    first = arms.members[0].live

    def tell(posts: Sequence[Post]) -> None:
        for live in arms.lives[1:]:
            live.check(posts)
        for live in arms.lives:
            live.post(posts)

    async def take(side: Side, request: HTTPRequest[Any, Any, Any]) -> Response[bytes]:
        try:
            given = _decode(await request.body())
            posts = [Post(side, one.id, one.features) for one in given]
        except MessageError as error:
            return _refused(error)
        return await accept(posts)

    async def accept(posts: Sequence[Post]) -> Response[bytes]:
        if not all(live.takes_posts for live in arms.lives):
            return _problem(409, "one generation is served, not a folder of them: there is no place to write changes down")
        try:
            await asyncio.to_thread(tell, posts)
        except MessageError as error:
            return _refused(error)
        except OSError as error:
            return _problem(507, f"the change cannot be written down: {error.strerror or error}")
        changed()
        generation = first.scorer.generation
        said = Accepted(len(posts), generation.meta.number, generation.sequence, generation.posts)
        return Response(messages.encode(said, "json"), media_type=MEDIA["json"])

    @post("/items", status_code=200)
    async def items(request: HTTPRequest[Any, Any, Any]) -> Response[bytes]:
        """Add or replace an item, or a list of them, by raw features: scorable when this answers."""
        return await take("item", request)

    @post("/users", status_code=200)
    async def users(request: HTTPRequest[Any, Any, Any]) -> Response[bytes]:
        """Add users, or update features of known ones."""
        return await take("user", request)

    @delete("/items/{item_id:str}", status_code=200)
    async def remove(request: HTTPRequest[Any, Any, Any]) -> Response[bytes]:
        """Remove an item: from now on it is missing in every answer."""
        item_id = str(request.path_params["item_id"])
        ids = first.scorer.generation.item_ids
        try:
            key: Id = int(item_id) if ids.integer else item_id
            known = ids.row(key) >= 0
        except (ValueError, IdError):
            return _problem(422, f"item id must be {'an integer' if ids.integer else 'text'}, got '{item_id:.100}'", "id")
        if not known:
            return _problem(404, f"item {item_id:.100} is not known")
        return await accept([Post("item", key, None)])

    return [items, users, remove]


def _decode(body: bytes) -> list[Entity]:
    """One or a list. Raises MessageError."""
    try:
        many = body.lstrip()[:1] == b"["
        entities: list[Entity] = msgspec.json.decode(body, type=list[Entity]) if many else [msgspec.json.decode(body, type=Entity)]
    except msgspec.ValidationError as error:
        raise MessageError(str(error), "body") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"body is not valid json: {error}") from None
    if not 1 <= len(entities) <= MOST:
        raise MessageError(f"must hold 1 to {MOST:,} of them, got {len(entities):,}", "body")
    return entities


def _refused(error: MessageError) -> Response[bytes]:
    return _problem(400 if error.field is None else 422, error.message, error.field)


def _problem(status: int, detail: str, field: str | None = None) -> Response[bytes]:
    return Response(messages.encode(Problem(detail, field), "json"), status_code=status, media_type=MEDIA["json"])
