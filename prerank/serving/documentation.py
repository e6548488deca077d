"""The OpenAPI page: the scoring route decodes its body itself, so its schema is given here, made from the same structs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
from litestar import Litestar
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin
from litestar.openapi.spec import Components, OpenAPIMediaType, OpenAPIResponse, Operation, Reference, RequestBody, Schema, SecurityScheme

from prerank import __version__
from prerank.serving.messages import MEDIA, BatchResponse, Problem, ScoreRequest, ScoreResponse

PATH = "#/components/schemas/"
REFUSALS = {
    "400": "the body is not valid JSON or MessagePack",
    "401": "the bearer token is missing or wrong",
    "413": "the body is larger than the limit",
    "422": "a field breaks a rule; `field` names it",
}


@dataclass
class _Given(Schema):
    """A JSON schema that exists already."""

    schema: dict[str, Any] = field(default_factory=dict)

    def to_schema(self) -> dict[str, Any]:
        return self.schema


def openapi(*, secured: bool) -> OpenAPIConfig:
    """Page at /docs, document at /docs/openapi.json."""
    return OpenAPIConfig(
        title="prerank",
        version=__version__,
        description="Orders candidates for a user. Bodies are JSON or MessagePack.",
        path="/docs",
        render_plugins=[SwaggerRenderPlugin(path="/"), JsonRenderPlugin(path="/openapi.json")],
        components=Components(security_schemes={"token": SecurityScheme(type="http", scheme="bearer")} if secured else None),
        security=[{"token": []}] if secured else None,
        use_handler_docstrings=True,
    )


def describe(app: Litestar) -> Litestar:
    """The app, with our messages among the document's schemas (Litestar keeps only those it found itself)."""
    _, schemas = msgspec.json.schema_components([ScoreRequest, ScoreResponse, BatchResponse, Problem], ref_template=f"{PATH}{{name}}")
    app.openapi_schema.components.schemas.update({name: _Given(schema=schema) for name, schema in schemas.items()})
    return app


@dataclass
class ScoreOperation(Operation):
    """Body and answers of POST /score."""

    def __post_init__(self) -> None:
        self.request_body = RequestBody(content={media: _content("ScoreRequest") for media in MEDIA.values()}, required=True)
        answers = _Given(schema={"oneOf": [{"$ref": PATH + "ScoreResponse"}, {"$ref": PATH + "BatchResponse"}]})
        self.responses = {
            "200": OpenAPIResponse("best candidates first", content={media: OpenAPIMediaType(schema=answers) for media in MEDIA.values()}),
            **{status: OpenAPIResponse(why, content={MEDIA["json"]: _content("Problem")}) for status, why in REFUSALS.items()},
        }


def _content(name: str) -> OpenAPIMediaType:
    return OpenAPIMediaType(schema=Reference(ref=PATH + name))
