"""`POST /webhooks/<provider>`: refused unless signed, answered as soon as it is stored."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Final, Protocol

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from penstock_billing import metrics
from penstock_billing.ports.notices import Arrival
from penstock_billing.ports.payments import Provider
from penstock_shared.contracts.errors import (
    ErrorReply,
    PenstockError,
    PermanentError,
    TooLargeError,
    TransientError,
    public_error,
)
from penstock_shared.runtime.telemetry import log

MAX_BODY_BYTES: Final = 256 * 1024
"""Providers' events have some kilobytes; nobody else shall make us read more."""
BODY_WITHIN_S: Final = 10.0
_SIGNATURE_HEADERS: Final = {Provider.STRIPE: "stripe-signature"}
"""What no two deliveries share. Braintree signs the notification, not the delivery."""

_INCOMPLETE: Final = "The body did not come, or not in time."


class Deliveries(Protocol):
    """Who takes deliveries in."""

    async def on_delivery(
        self, provider: Provider, headers: Mapping[str, str], body: bytes, signature: str | None
    ) -> Arrival:
        """After this returns it is stored."""
        ...


def create_webhook_app(
    desk: Deliveries, providers: frozenset[Provider], body_within_s: float = BODY_WITHIN_S
) -> Starlette:
    """The port's application: an address for each provider that is configured."""

    def address(provider: Provider) -> Route:
        async def receive(request: Request) -> Response:
            return await _receive(desk, provider, request, body_within_s)

        return Route(f"/webhooks/{provider.value}", receive, methods=["POST"])

    return Starlette(routes=[address(provider) for provider in sorted(providers)])


async def _receive(
    desk: Deliveries, provider: Provider, request: Request, body_within_s: float
) -> Response:
    try:
        async with asyncio.timeout(body_within_s):
            body = await _read(request)
        signature = request.headers.get(_SIGNATURE_HEADERS.get(provider, ""))
        digest = None if signature is None else hashlib.sha256(signature.encode()).hexdigest()
        await desk.on_delivery(provider, request.headers, body, digest)
    except (TimeoutError, ClientDisconnect):
        return _unread(provider, PermanentError(_INCOMPLETE, code="webhook_incomplete"))
    except TooLargeError as error:
        return _unread(provider, error)
    except PenstockError as error:
        return _refused(error)
    except Exception as error:  # noqa: BLE001  the provider delivers again; the log says why
        log().error("webhook.failed", kind=type(error).__name__, exc_info=error)
        return _refused(public_error(error))
    return JSONResponse({"received": True})


async def _read(request: Request) -> bytes:
    """The body, as far as it may be long.

    Raises:
        TooLargeError: it is longer; the rest is not read.
        ClientDisconnect: its sender went away.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            msg = f"The body is over {MAX_BODY_BYTES} bytes."
            raise TooLargeError(msg, code="webhook_too_large")
    return bytes(body)


def _unread(provider: Provider, error: PermanentError) -> Response:
    metrics.WEBHOOKS.labels(provider.value, error.code).inc()
    return _refused(error)


def _refused(error: PenstockError) -> Response:
    headers = {}
    if isinstance(error, TransientError):
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    body = ErrorReply(error=error.body()).model_dump()
    return JSONResponse(body, error.http_status, headers)
