"""What every HTTP request passes: a request id, a count, and the door that a drain closes."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock_realtime import metrics
from penstock_realtime.http.errors import error_response
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.runtime.clock import IdSource

_DRAINING = UnavailableError("This instance is shutting down: try again.", code="draining")


class Front:
    """ASGI middleware around the API."""

    def __init__(self, app: ASGIApp, ids: IdSource) -> None:
        self._app = app
        self._ids = ids
        self._active = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False

    async def drain(self) -> None:
        """Refuse what is new, and wait for what runs."""
        self.draining = True
        await self._idle.wait()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})["request_id"] = self._ids.new()
        self._active += 1
        self._idle.clear()
        try:
            app = error_response(_DRAINING, {"connection": "close"}) if self.draining else self._app
            await app(scope, receive, _named(scope, send))
        finally:
            self._active -= 1
            if not self._active:
                self._idle.set()


def _named(scope: Scope, send: Send) -> Send:
    async def send_named(message: Message) -> None:
        if message["type"] == "http.response.start":
            # The id may have become that of an idempotency key since the request came in.
            name = scope["state"]["request_id"].encode()
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", name)]
            route = getattr(scope.get("endpoint"), "__name__", "none")
            metrics.REQUESTS.labels(route, message["status"]).inc()
        await send(message)

    return send_named
