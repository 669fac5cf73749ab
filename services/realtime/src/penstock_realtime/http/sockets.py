"""Accepts WebSockets, and knows those that are open: a revoked key or a drain closes them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from starlette.types import Receive, Scope, Send

from penstock_realtime import metrics
from penstock_realtime.http.bearer import bearer
from penstock_realtime.http.errors import error_response
from penstock_realtime.http.socket import Socket, SocketServices
from penstock_shared.contracts.errors import PenstockError, UnavailableError
from penstock_shared.runtime.access import AccessControl

_DRAINING = UnavailableError("This instance is shutting down: try again.", code="draining")


class Sockets:
    """The WebSocket side of `/v1/responses`, an ASGI application."""

    def __init__(self, access: AccessControl, services: SocketServices) -> None:
        self._access = access
        self._services = services
        self._open: set[Socket] = set()
        self._draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; refused ones get an HTTP answer instead of a socket."""
        try:
            identity = self._access.authenticate(bearer(_header(scope, b"authorization")))
            if self._draining:
                raise _DRAINING
        except PenstockError as error:
            await error_response(error)(scope, receive, send)  # a denial response (ASGI)
            return
        await receive()  # websocket.connect
        await send({"type": "websocket.accept"})
        socket = Socket(identity, self._services, receive, send)
        self._open.add(socket)
        metrics.SOCKETS.inc()
        try:
            await socket.serve()
        finally:
            self._open.discard(socket)
            metrics.SOCKETS.dec()

    def revoke(self, key_ids: Collection[str]) -> None:
        """Close every socket of these keys."""
        for socket in tuple(self._open):
            if socket.identity.key.key_id in key_ids:
                metrics.KICKED.labels("websocket").inc()
                self._services.orphans.spawn(socket.revoke())

    async def drain(self) -> None:
        """Accept nothing new; close each socket once its responses have ended."""
        self._draining = True
        await asyncio.gather(*(socket.drain() for socket in tuple(self._open)))


def _header(scope: Scope, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None
