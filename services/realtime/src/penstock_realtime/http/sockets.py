"""Accepts WebSockets, and watches over those that are open."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import Any, Final

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.utils import ClientDisconnected

from penstock_realtime import metrics
from penstock_realtime.http.connections import Connections, client_address
from penstock_realtime.http.errors import error_response
from penstock_realtime.http.socket import CLOSE_POLICY, CLOSE_RESTART, Socket, parse_message
from penstock_realtime.http.socket_events import ResumeSession, StartSession
from penstock_realtime.http.socket_responses import SocketServices
from penstock_realtime.http.websocket_protocol import WIRE
from penstock_realtime.serving.authentication import Authentication, bearer
from penstock_realtime.serving.revocation import Revoked
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.errors import AuthenticationError, PenstockError, UnavailableError
from penstock_shared.runtime.access import Identity, Permission
from penstock_shared.runtime.clock import Clock

_DRAINING = UnavailableError("This instance is shutting down: try again.", code="draining")
_LOOK_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a socket may do nothing, in seconds."""

    first_message_s: float
    slow_reader_s: float
    idle_s: float


class Sockets:
    """The WebSocket side of `/v1/responses`, an ASGI application."""

    def __init__(
        self,
        authentication: Authentication,
        connections: Connections,
        services: SocketServices,
        patience: Patience,
        clock: Clock,
    ) -> None:
        self._authentication = authentication
        self._connections = connections
        self._services = services
        self._patience = patience
        self._clock = clock
        self._open: set[Socket] = set()
        self._draining = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; refused ones get an HTTP answer instead of a socket."""
        address = client_address(scope)
        identity: Identity | None = None
        try:
            if self._draining:
                raise _DRAINING
            secret = bearer(_header(scope, b"authorization"))
            if secret is not None:
                identity = await self._authentication.identify(secret)
                identity.require(Permission.READ)
                self._enter(identity, address)
            elif _header(scope, b"origin") is None:
                await self._authentication.identify(None)  # only a browser cannot send a header
        except PenstockError as error:
            metrics.WS_HANDSHAKE_FAILURES.labels(error.code).inc()
            await error_response(error)(scope, receive, send)  # a denial response (ASGI)
            return
        await receive()  # websocket.connect
        if identity is not None:
            await self._serve(identity, scope, receive, send)
            return
        await send({"type": "websocket.accept"})
        try:
            identity, first = await self._introduced(receive)
            self._enter(identity, address)
        except PenstockError as error:
            metrics.WS_HANDSHAKE_FAILURES.labels(error.code).inc()
            code = CLOSE_RESTART if error is _DRAINING else CLOSE_POLICY
            await send({"type": "websocket.close", "code": code, "reason": error.message[:120]})
            return
        await self._serve(identity, scope, receive, send, first)

    def start(self) -> None:
        """Look after slow readers, idle sockets and expired credentials."""
        self._spawn(self._watch())

    async def stop(self) -> None:
        """Look no more."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def revoke(self, revoked: Revoked) -> None:
        """Close every socket of these callers."""
        for socket in tuple(self._open):
            if revoked.covers(socket.identity.tenant.tenant, socket.identity.key_id):
                metrics.KICKED.labels("websocket").inc()
                self._spawn(socket.revoke(revoked.reason))

    def on_tenant(self, tenant: TenantRecord) -> None:
        """A tenant has other terms: they hold for the sockets that it has open, too."""
        for socket in self._open:
            if socket.identity.tenant.tenant == tenant.tenant:
                socket.identity = replace(socket.identity, tenant=tenant)

    async def drain(self) -> None:
        """Accept nothing new; close each socket once its responses have ended."""
        self._draining = True
        await asyncio.gather(*(socket.drain() for socket in tuple(self._open)))

    def _enter(self, identity: Identity, address: str | None) -> None:
        if self._draining:  # since it began to say who it is
            raise _DRAINING
        self._connections.enter(identity.tenant, address)

    async def _serve(
        self,
        identity: Identity,
        scope: Scope,
        receive: Receive,
        send: Send,
        first: Any = None,
    ) -> None:
        wire, address = scope["extensions"][WIRE], client_address(scope)
        socket = Socket(identity, self._services, receive, send, wire, address)
        self._open.add(socket)
        metrics.WS_ACTIVE.inc()
        try:
            if first is None:  # one that introduced itself is accepted already
                name = socket.session.session_id.encode()
                await send({"type": "websocket.accept", "headers": [(b"penstock-session", name)]})
            await socket.serve(first)
        finally:
            self._services.sessions.lost(socket.session)  # of a peer that had gone before it began
            self._open.discard(socket)
            self._connections.leave(identity.tenant, address)
            metrics.WS_ACTIVE.dec()

    async def _introduced(self, receive: Receive) -> tuple[Identity, Any]:
        """The caller of a browser's socket, and its first message, which says who it is."""
        try:
            async with asyncio.timeout(self._patience.first_message_s):
                message = await receive()
        except TimeoutError as error:
            msg = "Say who you are first: 'session.start' with 'token'."
            raise AuthenticationError(msg, code="missing_api_key") from error
        if message["type"] != "websocket.receive":
            raise ClientDisconnected
        event = parse_message(message)
        token = event.token if isinstance(event, StartSession | ResumeSession) else None
        identity = await self._authentication.identify(token)
        identity.require(Permission.READ)
        return identity, message

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            now, now_s = self._clock.now(), time.monotonic()
            metrics.WS_BUFFER_BYTES.set(sum(socket.waiting_bytes for socket in self._open))
            for socket in tuple(self._open):
                due = socket.due(now, now_s, self._patience.slow_reader_s, self._patience.idle_s)
                if due is not None:
                    self._spawn(socket.close(*due))

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _header(scope: Scope, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None
