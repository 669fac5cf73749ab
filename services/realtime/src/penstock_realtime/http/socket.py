"""One WebSocket: `response.create` events in, the responses' events out, side by side.

Raw ASGI, since a delta must not pay for a framework. Every task of a socket ends with it; what
becomes of the responses that still ran is decided by how the socket was closed.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Final

from starlette.types import Receive, Send
from uvicorn.protocols.utils import ClientDisconnected

from penstock_realtime import metrics
from penstock_realtime.domain.create_request import create_request, parse_object
from penstock_realtime.domain.rendering import Framing, compact
from penstock_realtime.errors import FeedClosedError
from penstock_realtime.http.errors import retry_headers, status_of
from penstock_realtime.serving.admission import Admissions, Call, require_allowed
from penstock_realtime.serving.lookup import Lookup
from penstock_realtime.serving.orphans import Orphans
from penstock_realtime.serving.streaming import events
from penstock_shared.contracts.errors import (
    NotFoundError,
    PenstockError,
    PermanentError,
    RateLimitedError,
    UnavailableError,
    public_error,
)
from penstock_shared.contracts.ids import parse_request_id
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.access import Identity
from penstock_shared.runtime.clock import IdSource
from penstock_shared.runtime.telemetry import log

CLOSE_NORMAL: Final = 1000
CLOSE_REVOKED: Final = 1008
CLOSE_RESTART: Final = 1012
_MAX_LANE_CHARS: Final = 128


@dataclass(frozen=True, slots=True)
class SocketServices:
    """What every socket works with."""

    admissions: Admissions
    lookup: Lookup
    orphans: Orphans
    ids: IdSource
    max_responses: int


class Socket:
    """One accepted connection."""

    def __init__(
        self, identity: Identity, services: SocketServices, receive: Receive, send: Send
    ) -> None:
        self.identity = identity
        self._services = services
        self._receive = receive
        self._send = send
        self._running: dict[str, asyncio.Task[None]] = {}
        """Task by request id."""
        self._closing = False
        """No new response is taken."""
        self._closed = False
        """The close frame is sent: nothing may follow it."""
        self._idle = asyncio.Event()
        self._idle.set()

    async def serve(self) -> None:
        """Handle events until the socket is closed, by whomever."""
        try:
            code = await self._receive_all()
        finally:
            running = list(self._running)
            for task in self._running.values():
                task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        if code == CLOSE_NORMAL:
            await self._cancel_all(running)
        else:
            self._services.orphans.adopt(self.identity.tenant.tenant, running)

    async def drain(self) -> None:
        """Take no new response, wait for those that run, then close with 1012."""
        self._closing = True
        await self._idle.wait()
        await self.close(CLOSE_RESTART)

    async def revoke(self) -> None:
        """The key is not valid any more: end everything."""
        self._closing = True
        running = list(self._running)
        await self.close(CLOSE_REVOKED, "This API key was revoked.")
        await self._cancel_all(running)

    async def close(self, code: int, reason: str = "") -> None:
        """Close the socket; the receiving loop then ends."""
        self._closing = self._closed = True
        with suppress(ClientDisconnected, OSError, RuntimeError):  # closed by the peer already
            await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def _receive_all(self) -> int:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                return int(message.get("code") or 0)
            try:
                self._handle(message)
            except PenstockError as error:
                await self._send_error(error)

    def _handle(self, message: Any) -> None:
        if message.get("text") is None:
            msg = "Send events as text frames: binary ones are not understood."
            raise PermanentError(msg, code="binary_frame")
        event = parse_object(message["text"])
        kind = event.pop("type", None)
        if kind == "response.create":
            self._create(event)
        elif kind == "response.cancel":
            self._cancel(event)
        else:
            shown = str(kind)[:80]
            msg = f"Unknown event type {shown!r}: send 'response.create' or 'response.cancel'."
            raise PermanentError(msg, code="unknown_event", param="type")

    def _create(self, event: dict[str, Any]) -> None:
        if self._closing:
            msg = "This connection is closing: open another one."
            raise UnavailableError(msg, code="draining")
        if len(self._running) >= self._services.max_responses:
            msg = f"{len(self._running)} responses run on this connection: wait for one to end."
            raise RateLimitedError(msg, code="too_many_responses")
        lane = event.pop("stream_id", None)
        if lane is not None and not (isinstance(lane, str) and len(lane) <= _MAX_LANE_CHARS):
            msg = f"'stream_id' is a string of at most {_MAX_LANE_CHARS} characters."
            raise PermanentError(msg, code="invalid_type", param="stream_id")
        call = self._services.admissions.identify(self.identity, self._services.ids.new())
        task = asyncio.create_task(self._respond(call, event, lane))
        self._running[call.request_id] = task
        self._idle.clear()
        task.add_done_callback(lambda _: self._ended(call.request_id))

    def _ended(self, request_id: str) -> None:
        self._running.pop(request_id, None)
        if not self._running:
            self._idle.set()

    def _cancel(self, event: dict[str, Any]) -> None:
        named = event.get("response_id")
        if named is None and len(self._running) == 1:
            request_id = next(iter(self._running))
        else:
            if not isinstance(named, str):
                msg = "Name the response: 'response_id'."
                raise PermanentError(msg, code="missing_required_parameter", param="response_id")
            request_id = parse_request_id(named)
        if request_id not in self._running:
            msg = "No such response runs on this connection: POST /v1/responses/{id}/cancel."
            raise NotFoundError(msg, code="response_not_found", param="response_id")
        self._services.orphans.spawn(self._command_cancel(request_id))

    async def _command_cancel(self, request_id: str) -> None:
        try:
            await self._services.lookup.commands.cancel(self.identity.tenant.tenant, request_id)
        except PenstockError as error:
            await self._send_error(error)

    async def _respond(self, call: Call, event: dict[str, Any], lane: str | None) -> None:
        try:
            await self._stream(call, event, lane)
        except (ClientDisconnected, FeedClosedError):
            return
        except PenstockError as error:
            await self._send_error(error, lane)
        except Exception as error:  # noqa: BLE001  a bug ends one response, not the socket
            log().error("socket.response_failed", request_id=call.request_id, exc_info=error)
            await self._send_error(public_error(error), lane)

    async def _stream(self, call: Call, event: dict[str, Any], lane: str | None) -> None:
        admissions = self._services.admissions
        require_allowed(await admissions.limit(call))
        event.pop("stream", None)  # implied here
        admitted = await admissions.admit(call, create_request(event), Lane.INTERACTIVE)
        framing = Framing(server_sent=False, stream_id=lane)
        async with aclosing(events(admitted, framing)) as batches:
            async for batch in batches:
                for text in batch:
                    await self._send_text(text)
        metrics.REQUESTS.labels("websocket", 200).inc()

    async def _send_error(self, error: PenstockError, lane: str | None = None) -> None:
        metrics.REQUESTS.labels("websocket", status_of(error)).inc()
        fields = {**error.body().model_dump(), "headers": retry_headers(error)}
        event = {"type": "error", "status": status_of(error), "error": fields}
        if lane is not None:
            event["stream_id"] = lane
        with suppress(ClientDisconnected):
            await self._send_text(compact(event))

    async def _send_text(self, text: bytes) -> None:
        if self._closed:
            raise ClientDisconnected
        await self._send({"type": "websocket.send", "text": text.decode()})

    async def _cancel_all(self, request_ids: list[str]) -> None:
        tenant = self.identity.tenant.tenant
        for request_id in request_ids:
            try:
                await self._services.lookup.commands.cancel(tenant, request_id)
            except PenstockError:
                self._services.orphans.adopt(tenant, [request_id])
