"""The OpenAPI 3.1 document, from the routes that are served.

Source: OpenAPI Specification 3.1.1. It has no word for server-sent events: the schema of such an
answer is that of one event (3.2 calls it `itemSchema`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final

from pydantic import BaseModel
from starlette.routing import Route

from penstock_realtime.http.documents.inputs import AnswerId, ResponseId
from penstock_realtime.http.documents.operations import OPERATIONS, Operation
from penstock_realtime.http.documents.schemas import Body, Schema, Schemas
from penstock_shared.contracts.errors import ErrorReply

_CONVERTER: Final = re.compile(r"\{(\w+):\w+\}")
_PATH_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_EVERYWHERE: Final = (401, 403, 429, 500, 503)
_JSON: Final = "application/json"
_IDS: Final = {"response_id": ResponseId, "answer_id": AnswerId}
_LIMITS: Final = {
    f"x-ratelimit-{what}-{unit}": {"$ref": f"#/components/headers/{what}-{unit}"}
    for unit in ("requests", "tokens")
    for what in ("limit", "remaining", "reset")
}


def openapi(routes: Iterable[Route]) -> dict[str, Any]:
    """The document; a route that `OPERATIONS` does not describe is told with its path alone."""
    schemas = Schemas()
    error = schemas.ref(ErrorReply)
    paths: dict[str, Any] = {}
    for route in routes:
        path = _CONVERTER.sub(r"{\1}", route.path)
        described = OPERATIONS.get(route.name)
        for method in sorted((route.methods or set()) - {"HEAD"}):
            operation = (
                {"responses": {"200": {"description": "OK"}}}
                if described is None
                else _operation(described, path, schemas)
            )
            paths.setdefault(path, {})[method.lower()] = operation
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Penstock",
            "version": version("penstock-realtime"),
            "summary": "The OpenAI API for text, served by CTranslate2 models.",
        },
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.named.items())),
            "responses": _errors(error),
            "headers": _headers(),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key, or a token of the tenant's identity provider.",
                }
            },
        },
    }


def _operation(operation: Operation, path: str, schemas: Schemas) -> dict[str, Any]:
    content: dict[str, Any] = {_JSON: {"schema": schemas.ref(operation.answer, "serialization")}}
    if operation.streams:
        content["text/event-stream"] = {"schema": _server_sent(operation, schemas)}
    answer: dict[str, Any] = {
        "description": "OK",
        "content": content,
        "headers": {"x-request-id": {"$ref": "#/components/headers/request-id"}},
    }
    told: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": _parameters(operation, path, schemas),
        "responses": {"200": answer}
        | {
            str(status): {"$ref": f"#/components/responses/{status}"}
            for status in sorted({*_EVERYWHERE, *operation.errors})
        },
    }
    if operation.body is not None:
        told["requestBody"] = _body(operation.body, schemas)
    if operation.limited:
        answer["headers"] |= _LIMITS
    return told


def _server_sent(operation: Operation, schemas: Schemas) -> Schema:
    """One event: JSON in its data; a stream without names ends with a line that is none."""
    events = [schemas.ref(event, "serialization") for event in operation.streams]
    data: Schema = {
        "type": "string",
        "contentMediaType": _JSON,
        "contentSchema": {"anyOf": events},
    }
    if operation.done is not None:
        data = {"anyOf": [{"const": operation.done}, data]}
    return {
        "type": "object",
        "properties": {"event": {"type": "string"}, "data": data},
        "required": ["data"],
    }


def _body(body: Body | type[BaseModel], schemas: Schemas) -> dict[str, Any]:
    if isinstance(body, Body):
        return {"required": True, "content": {_JSON: {"schema": schemas.body(body)}}}
    needed = any(field.is_required() for field in body.model_fields.values())
    return {"required": needed, "content": {_JSON: {"schema": schemas.ref(body)}}}


def _parameters(operation: Operation, path: str, schemas: Schemas) -> list[dict[str, Any]]:
    found = [
        _parameter(name, "path", _id_schema(name, schemas), required=True)
        for name in _PATH_PARAMETER.findall(path)
    ]
    if operation.query is not None:
        query = schemas.of(operation.query)
        needed = query.get("required", ())
        found += [
            _parameter(name, "query", schema, required=name in needed)
            for name, schema in query["properties"].items()
        ]
    if isinstance(operation.body, Body):
        key = {"type": "string", "maxLength": 255}
        found.append(_parameter("Idempotency-Key", "header", key))
    return found


def _id_schema(name: str, schemas: Schemas) -> Schema:
    if name in _IDS:
        return schemas.of(_IDS[name])
    return {"type": "string", "minLength": 1, "maxLength": 63}


def _parameter(name: str, place: str, schema: Schema, *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "schema": schema}


def _errors(schema: Schema) -> dict[str, Any]:
    """Every error has one format; the message says what to do, `param` names the field."""
    extra: dict[int, dict[str, Any]] = {
        401: {"www-authenticate": {"schema": {"const": "Bearer"}}},
        429: {"retry-after": {"$ref": "#/components/headers/retry-after"}},
        503: {"retry-after": {"$ref": "#/components/headers/retry-after"}},
    }
    statuses = {*_EVERYWHERE, *(s for one in OPERATIONS.values() for s in one.errors)}
    return {
        str(status): {
            "description": HTTPStatus(status).phrase,
            "headers": {
                "x-request-id": {"$ref": "#/components/headers/request-id"},
                **extra.get(status, {}),
            },
            "content": {_JSON: {"schema": schema}},
        }
        for status in sorted(statuses)
    }


def _headers() -> dict[str, Any]:
    whole = {"type": "integer", "minimum": 0}
    told = {
        "request-id": ("By which the log knows this request.", {"type": "string"}),
        "retry-after": ("Seconds.", {"type": "integer", "minimum": 1}),
    }
    for unit in ("requests", "tokens"):
        told |= {
            f"limit-{unit}": (f"{unit.capitalize()} per minute.", whole),
            f"remaining-{unit}": ("How many fit now.", whole),
            f"reset-{unit}": (
                "Until all fit again.",
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?s$"},
            ),
        }
    return {
        name: {"description": description, "schema": schema}
        for name, (description, schema) in told.items()
    }
