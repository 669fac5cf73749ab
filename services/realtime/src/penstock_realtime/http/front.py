"""What every request passes: an id, an address, the measures, and the door that a drain closes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock_realtime import metrics
from penstock_realtime.domain.forwarding import Networks, client_of
from penstock_realtime.http.errors import error_response
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.runtime.clock import IdSource

_FORWARDED_FOR: Final = b"x-forwarded-for"
_DRAINING: Final = UnavailableError("This instance is shutting down: try again.", code="draining")


class Front:
    """ASGI middleware around the API."""

    def __init__(self, app: ASGIApp, ids: IdSource, trusted: Networks) -> None:
        """`trusted`: the proxies whose word on their clients' addresses is taken."""
        self._app = app
        self._ids = ids
        self._trusted = trusted
        self._active: dict[int, Scope] = {}
        self._routes: set[str] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False

    async def drain(self) -> None:
        """Refuse what is new, and wait for what runs."""
        self.draining = True
        await self._idle.wait()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or connection."""
        scope["state"]["address"] = self._address(scope)
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["request_id"] = self._ids.new()
        self._active[id(scope)] = scope
        self._idle.clear()
        measured = _Measured(scope, send, self._show)
        try:
            app = error_response(_DRAINING, {"connection": "close"}) if self.draining else self._app
            await app(scope, receive, measured.send)
        finally:
            del self._active[id(scope)]
            if not self._active:
                self._idle.set()
            measured.end()

    def _address(self, scope: Scope) -> str | None:
        peer = scope.get("client")
        if peer is None:
            return None
        heard = (
            [value.decode("latin-1") for name, value in scope["headers"] if name == _FORWARDED_FOR]
            if self._trusted
            else ()
        )
        return client_of(peer[0], heard, self._trusted)

    def _show(self, route: str) -> None:
        """Have the requests in flight counted when somebody asks: nothing else pays for it."""
        if route not in self._routes:
            self._routes.add(route)
            metrics.IN_FLIGHT.labels(route).set_function(partial(self._in_flight, route))

    def _in_flight(self, route: str) -> int:
        return sum(_route(scope) == route for scope in tuple(self._active.values()))


class _Measured:
    """One answer on its way: named, counted and timed."""

    __slots__ = ("_first_byte_s", "_on_start", "_scope", "_send", "_started_s", "_status")

    def __init__(self, scope: Scope, send: Send, on_start: Callable[[str], None]) -> None:
        """`on_start` is told the route, which nobody knows earlier."""
        self._scope = scope
        self._send = send
        self._on_start = on_start
        self._started_s = time.perf_counter()
        self._first_byte_s: float | None = None
        self._status = 0
        """None was sent: the client had gone."""

    async def send(self, message: Message) -> None:
        """Pass it on."""
        if message["type"] == "http.response.start":
            # The id may have become that of an idempotency key since the request came in.
            name = self._scope["state"]["request_id"].encode()
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", name)]
            self._status = message["status"]
            self._on_start(_route(self._scope))
        elif self._first_byte_s is None and message.get("body"):
            self._first_byte_s = time.perf_counter() - self._started_s
        await self._send(message)

    def end(self) -> None:
        """The answer has ended, or its client has gone."""
        route = _route(self._scope)
        metrics.REQUESTS.labels(route, self._status).inc()
        took_s = time.perf_counter() - self._started_s
        metrics.REQUEST_DURATION_S.labels(route, self._status).observe(took_s)
        if self._first_byte_s is not None:
            metrics.TIME_TO_FIRST_BYTE_S.labels(route).observe(self._first_byte_s)


def _route(scope: Scope) -> str:
    """The endpoint's name, never a path: paths are the client's choice."""
    return str(getattr(scope.get("endpoint"), "__qualname__", "none"))
