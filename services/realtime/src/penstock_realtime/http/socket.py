"""One WebSocket: events in, the events of any number of responses out.

Raw ASGI, since a delta must not pay for a framework. Every task of a socket ends with it; what
becomes of the responses that still ran is decided by how the socket was closed (serving/sessions).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from datetime import datetime
from typing import Any, Final

from starlette.types import Receive, Send

from penstock_realtime import metrics
from penstock_realtime.domain.parameters import parse_object
from penstock_realtime.domain.response_object import response_id
from penstock_realtime.http.outlet import Outlet
from penstock_realtime.http.socket_events import (
    CancelResponse,
    CreateResponse,
    Event,
    ResumeResponse,
    ResumeSession,
    StartSession,
    parse_event,
)
from penstock_realtime.http.socket_responses import SocketResponses, SocketServices
from penstock_realtime.ports import Policy
from penstock_realtime.serving.sessions import Session
from penstock_realtime.serving.streaming import DirectWay
from penstock_shared.contracts.errors import (
    ConflictError,
    NotFoundError,
    PenstockError,
    PermanentError,
    UnavailableError,
)
from penstock_shared.runtime.access import Identity, Permission

CLOSE_NORMAL: Final = 1000
CLOSE_POLICY: Final = 1008
CLOSE_RESTART: Final = 1012
CLOSE_SLOW: Final = 1013
"""The official SDKs reconnect on this one and on 1012."""
CLOSE_TAKEN: Final = 4001
"""Another socket has resumed the session. The SDKs do not reconnect: the two would take turns."""


class Socket:
    """One accepted connection of a caller who is known."""

    def __init__(
        self,
        identity: Identity,
        services: SocketServices,
        receive: Receive,
        send: Send,
        wire: DirectWay,
        address: str | None = None,
    ) -> None:
        self.identity = identity
        self._services = services
        self._receive = receive
        self._address = address
        self._outlet = Outlet(send, wire)
        self._responses = SocketResponses(services, self._outlet)
        self._commands: set[asyncio.Task[None]] = set()
        self._cancelling: set[str] = set()
        """One command at a time for each response, however often its client sends it."""
        self._closing = False
        """No new response is taken."""
        self._used_at_s = time.monotonic()
        self.session: Session = services.sessions.open(self._tenant, Policy.BLOCK, self._on_taken)

    @property
    def _tenant(self) -> str:
        return self.identity.tenant.tenant

    async def serve(self, first: Any = None) -> None:
        """Handle events until the socket is closed, by whomever; `first` has come already."""
        code = 0
        try:
            code = await self._receive_all(first)
        finally:
            self._outlet.closed = True
            await self._responses.stop()
            if code == CLOSE_NORMAL:
                await self._services.sessions.left(self.session)
            else:
                self._services.sessions.lost(self.session)
            await asyncio.gather(*self._commands, return_exceptions=True)

    async def drain(self) -> None:
        """Take no new response, wait for those that run, then close with 1012."""
        self._closing = True
        await self._responses.ended()
        await self.close(CLOSE_RESTART, "This instance restarts: connect again.")

    async def revoke(self, reason: str) -> None:
        """The credential is not valid any more: end everything."""
        self._closing = True
        await self._responses.stop()
        await self._services.sessions.left(self.session)
        await self.close(CLOSE_POLICY, reason)

    async def close(self, code: int, reason: str) -> None:
        """Close the socket; `serve` then ends."""
        self._closing = True
        await self._outlet.close(code, reason)

    @property
    def waiting_bytes(self) -> int:
        """Text that waits for the reader."""
        return self._responses.waiting_bytes

    def due(
        self, now: datetime, now_s: float, slow_s: float, idle_s: float
    ) -> tuple[int, str] | None:
        """Why this socket is to be closed now: code and reason; None when it is not."""
        expires_at = self.identity.expires_at
        if expires_at is not None and expires_at <= now:
            return CLOSE_POLICY, "The credential has expired."
        if self._outlet.waited_s(now_s) > slow_s:
            return CLOSE_SLOW, "The events were not read: connect again and resume."
        if len(self._responses):
            self._used_at_s = now_s
        elif now_s - self._used_at_s > idle_s:
            return CLOSE_NORMAL, "Nothing has happened for a long time."
        return None

    def _on_taken(self) -> None:
        self._closing = True
        self._responses.cancel()
        self._spawn(self.close(CLOSE_TAKEN, "Another connection has resumed this session."))

    async def _receive_all(self, first: Any) -> int:
        message = first or await self._receive()
        while message["type"] != "websocket.disconnect":
            self._used_at_s = time.monotonic()
            try:
                await self._handle(parse_message(message))
            except PenstockError as error:
                await self._outlet.error(error)
            message = await self._receive()
        return int(message.get("code") or 0)

    async def _handle(self, event: Event) -> None:
        match event:
            case CreateResponse():
                self._create(event)
            case CancelResponse():
                self._cancel(event)
            case ResumeResponse():
                self._resume_response(event)
            case StartSession():
                await self._start_session(event)
            case ResumeSession():
                await self._resume_session(event)

    def _create(self, event: CreateResponse) -> None:
        self.identity.require(Permission.WRITE)
        self._require_open()
        call = self._services.admissions.identify(
            self.identity, self._services.ids.new(), address=self._address
        )
        self._responses.create(self.session, call, event)

    def _resume_response(self, event: ResumeResponse) -> None:
        self._require_open()
        if event.request_id in self._responses:
            msg = "This response runs on this connection already."
            raise ConflictError(msg, code="response_attached", param="response_id")
        self._responses.resume(
            self.session, event.request_id, event.stream_id, event.starting_after
        )

    def _cancel(self, event: CancelResponse) -> None:
        self.identity.require(Permission.WRITE)
        request_id = event.request_id or self._responses.only
        if request_id is None:
            msg = "Name the response: 'response_id'."
            raise PermanentError(msg, code="missing_required_parameter", param="response_id")
        if request_id not in self._responses:
            msg = "No such response runs on this connection: POST /v1/responses/{id}/cancel."
            raise NotFoundError(msg, code="response_not_found", param="response_id")
        if request_id not in self._cancelling:
            self._cancelling.add(request_id)
            self._spawn(self._command_cancel(request_id))

    async def _command_cancel(self, request_id: str) -> None:
        try:
            await self._services.lookup.commands.cancel(self._tenant, request_id)
        except PenstockError as error:
            await self._outlet.error(error)
        finally:
            self._cancelling.discard(request_id)

    async def _start_session(self, event: StartSession) -> None:
        if event.policy is not None:
            self.session.policy = event.policy
            self._services.sessions.changed(self.session)
        await self._outlet.tell({"type": "session.started", "session": self._described()})

    async def _resume_session(self, event: ResumeSession) -> None:
        self.identity.require(Permission.WRITE)  # it takes the session from its holder
        self._require_open()
        if (
            len(self._responses)
            or self.session.responses
            or event.session_id == self.session.session_id
        ):
            msg = "Resume another connection's session, before this one has responses of its own."
            raise ConflictError(msg, code="session_in_use")
        sessions = self._services.sessions
        resumed = await sessions.resume(self._tenant, event.session_id, self._on_taken)
        await sessions.left(self.session)  # the one that this connection began with, empty
        self.session = resumed
        metrics.RESUMED.labels("session").inc()
        stream_ids = {
            **dict.fromkeys(event.positions),
            **{id_: running.stream_id for id_, running in resumed.responses.items()},
        }
        responses = [
            {
                "response_id": response_id(request_id),
                "stream_id": stream_id,
                "starting_after": event.positions.get(request_id),
            }
            for request_id, stream_id in stream_ids.items()
        ]
        described = self._described()
        await self._outlet.tell(
            {"type": "session.resumed", "session": described, "responses": responses}
        )
        if self._closing:  # it was taken in its turn, or this instance drains
            return
        for request_id, after in event.positions.items():
            self._responses.resume(resumed, request_id, stream_ids[request_id], after)

    def _described(self) -> dict[str, Any]:
        session = self.session
        return {
            "id": session.session_id,
            "policy": session.policy,
            "resumable_for_s": self._services.window_s,
        }

    def _require_open(self) -> None:
        if self._closing:
            msg = "This connection is closing: open another one."
            raise UnavailableError(msg, code="draining")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)


def parse_message(message: Any) -> Event:
    """The event in a message.

    Raises:
        PermanentError: it is none that clients may send.
    """
    if message.get("text") is None:
        msg = "Send events as text frames: binary ones are not understood."
        raise PermanentError(msg, code="binary_frame")
    return parse_event(parse_object(message["text"]))
