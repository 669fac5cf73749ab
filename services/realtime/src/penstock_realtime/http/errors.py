"""Errors as answers, in the OpenAI API's format. The only place that maps them to HTTP."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from penstock_realtime.errors import FailedError, RefusedError
from penstock_shared.contracts.errors import (
    ErrorBody,
    ErrorReply,
    PenstockError,
    TransientError,
    public_error,
)

Headers = dict[str, str]
DO_NOT_RETRY: Final[Headers] = {"x-should-retry": "false"}


def status_of(error: PenstockError) -> int:
    """The HTTP status that an error means."""
    return error.status if isinstance(error, RefusedError) else error.http_status


def retry_headers(error: PenstockError) -> Headers:
    """`Retry-After`, where coming back later may help (RFC 9110 §10.2.3: whole seconds).

    The official SDKs repeat what failed with a 5xx: a request that has ended would be generated,
    and billed, anew. `x-should-retry` is how they are told.
    """
    if isinstance(error, FailedError):
        return DO_NOT_RETRY
    if isinstance(error, TransientError | RefusedError) and error.retry_after_s is not None:
        return {"retry-after": str(max(1, math.ceil(error.retry_after_s)))}
    return {}


def error_response(error: PenstockError, headers: Headers | None = None) -> Response:
    """The answer to a request that failed."""
    status = status_of(error)
    extra = {**(headers or {}), **retry_headers(error)}
    if status == HTTPStatus.UNAUTHORIZED:
        extra["www-authenticate"] = "Bearer"
    return Response(
        ErrorReply(error=error.body()).model_dump_json(),
        status_code=status,
        headers=extra,
        media_type="application/json",
    )


async def on_penstock_error(_: Request, error: Exception) -> Response:
    """Errors that were raised on purpose."""
    return error_response(public_error(error))


async def on_bug(_: Request, error: Exception) -> Response:
    """Anything else: an answer that leaks nothing. Starlette logs the exception itself."""
    return error_response(public_error(error))


async def on_http_error(request: Request, error: Exception) -> Response:
    """No such path, or not this method on it."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    wrong_method = status == HTTPStatus.METHOD_NOT_ALLOWED
    body = ErrorBody(
        message=f"{request.method} {request.url.path[:200]} is not served: see /v1/models, "
        "/v1/responses.",
        type="invalid_request_error",
        code="method_not_allowed" if wrong_method else "not_found",
    )
    return Response(
        ErrorReply(error=body).model_dump_json(), status, headers, media_type="application/json"
    )
