"""One WebSocket: events in, the events of any number of responses out, side by side.

Raw ASGI, since a delta must not pay for a framework. Every task of a socket ends with it; what
becomes of the responses that still ran is decided by how the socket was closed (serving/sessions).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from starlette.types import Receive, Send
from uvicorn.protocols.utils import ClientDisconnected

from penstock_realtime import metrics
from penstock_realtime.domain.create_request import create_request
from penstock_realtime.domain.parameters import parse_object
from penstock_realtime.domain.rendering import EventStream, Framing, compact, delta_before
from penstock_realtime.domain.response_object import response_id
from penstock_realtime.errors import FeedClosedError
from penstock_realtime.http.errors import retry_headers, status_of
from penstock_realtime.http.socket_events import (
    CancelResponse,
    CreateResponse,
    ResumeResponse,
    ResumeSession,
    StartSession,
    parse_event,
)
from penstock_realtime.ports import Budget, Policy
from penstock_realtime.serving.admission import Admissions, Call
from penstock_realtime.serving.lookup import Lookup
from penstock_realtime.serving.resuming import reattach
from penstock_realtime.serving.sessions import Session, Sessions
from penstock_realtime.serving.streaming import events
from penstock_shared.contracts.errors import (
    ConflictError,
    NotFoundError,
    PenstockError,
    PermanentError,
    RateLimitedError,
    UnavailableError,
    public_error,
)
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.access import Identity, Permission
from penstock_shared.runtime.clock import IdSource
from penstock_shared.runtime.telemetry import log

CLOSE_NORMAL: Final = 1000
CLOSE_POLICY: Final = 1008
CLOSE_RESTART: Final = 1012
CLOSE_SLOW: Final = 1013
"""The official SDKs reconnect on this one and on 1012."""
CLOSE_TAKEN: Final = 4001
"""Another socket has resumed the session. The SDKs do not reconnect: the two would take turns."""


@dataclass(frozen=True, slots=True)
class SocketServices:
    """What every socket works with."""

    admissions: Admissions
    lookup: Lookup
    sessions: Sessions
    ids: IdSource
    max_responses: int
    buffer_bytes: int
    window_s: float


class Socket:
    """One accepted connection of a caller who is known."""

    def __init__(
        self,
        identity: Identity,
        services: SocketServices,
        receive: Receive,
        send: Send,
        address: str | None = None,
    ) -> None:
        self.identity = identity
        self._services = services
        self._receive = receive
        self._send = send
        self._address = address
        self._budget = Budget(services.buffer_bytes)
        self._running: dict[str, asyncio.Task[None]] = {}
        """Task by request id."""
        self._others: set[asyncio.Task[None]] = set()
        self._closing = False
        """No new response is taken."""
        self._closed = False
        """The close frame is sent: nothing may follow it."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._writing_since_s: float | None = None
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
            self._closed = True
            tasks = [*self._running.values(), *self._others]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if code == CLOSE_NORMAL:
                await self._services.sessions.left(self.session)
            else:
                self._services.sessions.lost(self.session)

    async def drain(self) -> None:
        """Take no new response, wait for those that run, then close with 1012."""
        self._closing = True
        await self._idle.wait()
        await self.close(CLOSE_RESTART, "This instance restarts: connect again.")

    async def revoke(self, reason: str) -> None:
        """The credential is not valid any more: end everything."""
        self._closing = True
        await self._services.sessions.left(self.session)
        await self.close(CLOSE_POLICY, reason)

    async def close(self, code: int, reason: str = "") -> None:
        """Close the socket; the receiving loop then ends."""
        if self._closed:
            return
        self._closing = self._closed = True
        metrics.WS_CLOSED.labels(code).inc()
        with suppress(ClientDisconnected, OSError, RuntimeError):  # closed by the peer already
            await self._send({"type": "websocket.close", "code": code, "reason": reason})

    def due(
        self, now: datetime, now_s: float, slow_s: float, idle_s: float
    ) -> tuple[int, str] | None:
        """Why this socket is to be closed now: code and reason; None when it is not."""
        expires_at = self.identity.expires_at
        if expires_at is not None and expires_at <= now:
            return CLOSE_POLICY, "The credential has expired."
        if self._writing_since_s is not None and now_s - self._writing_since_s > slow_s:
            return CLOSE_SLOW, "The events were not read: connect again and resume."
        if self._running:
            self._used_at_s = now_s
        elif now_s - self._used_at_s > idle_s:
            return CLOSE_NORMAL, "Nothing has happened for a long time."
        return None

    def _on_taken(self) -> None:
        for task in self._running.values():
            task.cancel()
        self._spawn(self.close(CLOSE_TAKEN, "Another connection has resumed this session."))

    async def _receive_all(self, first: Any) -> int:
        while True:
            message = first or await self._receive()
            first = None
            if message["type"] == "websocket.disconnect":
                return int(message.get("code") or 0)
            self._used_at_s = time.monotonic()
            try:
                await self._handle(parse_message(message))
            except PenstockError as error:
                await self._send_error(error)

    async def _handle(self, event: Any) -> None:
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
        admissions = self._services.admissions
        call = admissions.identify(self.identity, self._services.ids.new(), address=self._address)
        stream_id = event.stream_id
        self._run(call.request_id, self._respond(stream_id, self._stream(call, event)))

    def _resume_response(self, event: ResumeResponse) -> None:
        request_id = event.request_id
        if request_id in self._running:
            msg = "This response runs on this connection already."
            raise ConflictError(msg, code="response_attached", param="response_id")
        work = self._catch_up(request_id, event.stream_id, event.starting_after)
        self._run(request_id, self._respond(event.stream_id, work))

    def _run(self, request_id: str, work: Awaitable[None]) -> None:
        if self._closing:
            msg = "This connection is closing: open another one."
            raise UnavailableError(msg, code="draining")
        if len(self._running) >= self._services.max_responses:
            msg = f"{len(self._running)} responses run on this connection: wait for one to end."
            raise RateLimitedError(msg, code="too_many_responses")
        task = asyncio.ensure_future(work)
        self._running[request_id] = task
        self._idle.clear()
        task.add_done_callback(lambda _: self._ended(request_id))

    def _ended(self, request_id: str) -> None:
        self._running.pop(request_id, None)
        if not self._running:
            self._idle.set()

    def _cancel(self, event: CancelResponse) -> None:
        self.identity.require(Permission.WRITE)
        request_id = event.request_id
        if request_id is None:
            if len(self._running) != 1:
                msg = "Name the response: 'response_id'."
                raise PermanentError(msg, code="missing_required_parameter", param="response_id")
            request_id = next(iter(self._running))
        if request_id not in self._running:
            msg = "No such response runs on this connection: POST /v1/responses/{id}/cancel."
            raise NotFoundError(msg, code="response_not_found", param="response_id")
        self._spawn(self._command_cancel(request_id))

    async def _command_cancel(self, request_id: str) -> None:
        try:
            await self._services.lookup.commands.cancel(self._tenant, request_id)
        except PenstockError as error:
            await self._send_error(error)

    async def _start_session(self, event: StartSession) -> None:
        if event.policy is not None:
            self.session.policy = event.policy
        await self._tell({"type": "session.started", "session": self._described()})

    async def _resume_session(self, event: ResumeSession) -> None:
        if self._running or self.session.responses:
            msg = "Resume a session first of all on a connection: this one has responses already."
            raise ConflictError(msg, code="session_in_use")
        sessions = self._services.sessions
        resumed = await sessions.resume(self._tenant, event.session_id, self._on_taken)
        await sessions.left(self.session)  # the one that this connection began with, empty
        self.session = resumed
        metrics.RESUMED.labels("session").inc()
        lanes = {id_: one.stream_id for id_, one in resumed.responses.items()}
        lanes |= {id_: None for id_ in event.positions if id_ not in lanes}
        listed = [
            {
                "response_id": response_id(id_),
                "stream_id": lane,
                "starting_after": event.positions.get(id_, -1),
            }
            for id_, lane in lanes.items()
        ]
        await self._tell(
            {"type": "session.resumed", "session": self._described(), "responses": listed}
        )
        for id_, lane in lanes.items():
            work = self._catch_up(id_, lane, event.positions.get(id_, -1))
            self._run(id_, self._respond(lane, work))

    def _described(self) -> dict[str, Any]:
        session = self.session
        return {
            "id": session.session_id,
            "policy": session.policy,
            "resumable_for_s": self._services.window_s,
        }

    async def _respond(self, stream_id: str | None, work: Awaitable[None]) -> None:
        try:
            await work
        except (ClientDisconnected, FeedClosedError):
            metrics.WS_SEND_ERRORS.inc()
        except PenstockError as error:
            await self._send_error(error, stream_id)
        except Exception as error:  # noqa: BLE001  a bug ends one response, not the socket
            log().error("socket.response_failed", exc_info=error)
            await self._send_error(public_error(error), stream_id)

    async def _stream(self, call: Call, event: CreateResponse) -> None:
        admissions, sessions = self._services.admissions, self._services.sessions
        given = create_request(event.parameters)
        (await admissions.limit(call, given)).require()
        admitted = await admissions.admit(
            call, given, Lane.INTERACTIVE, self._budget, Policy(self.session.policy)
        )
        sessions.started(self.session, call.request_id, event.stream_id, kept=given.background)
        framing = Framing(server_sent=False, stream_id=event.stream_id)
        stream = events(
            admitted.following,
            EventStream(admitted.head, framing),
            on_end=lambda final: admissions.settle(admitted, final),
        )
        await self._pass_on(stream)
        sessions.ended(self.session, call.request_id)
        metrics.REQUESTS.labels("websocket", 200).inc()

    async def _catch_up(self, request_id: str, stream_id: str | None, after: int) -> None:
        """The events of a response after the one numbered `after`."""
        sessions = self._services.sessions
        in_session = request_id in self.session.responses
        if not in_session:
            sessions.follow(self._tenant, request_id, self.session.session_id)
            metrics.RESUMED.labels("response").inc()
        head, following = await reattach(
            self._services.lookup.sources,
            self._tenant,
            request_id,
            self._budget,
            Policy(self.session.policy),
        )
        framing = Framing(server_sent=False, stream_id=stream_id)
        renderer = EventStream(head, framing, after)
        await self._pass_on(events(following, renderer, after=delta_before(after)))
        if in_session:
            sessions.ended(self.session, request_id)
        else:
            sessions.unfollow(self._tenant, request_id, self.session.session_id)

    async def _pass_on(self, stream: Any) -> None:
        async with aclosing(stream) as batches:
            async for batch in batches:
                for text in batch:
                    await self._send_text(text)

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    async def _tell(self, event: dict[str, Any]) -> None:
        with suppress(ClientDisconnected):
            await self._send_text(compact(event))

    async def _send_error(self, error: PenstockError, stream_id: str | None = None) -> None:
        metrics.REQUESTS.labels("websocket", status_of(error)).inc()
        fields = {**error.body().model_dump(), "headers": retry_headers(error)}
        event = {"type": "error", "status": status_of(error), "error": fields}
        if stream_id is not None:
            event["stream_id"] = stream_id
        await self._tell(event)

    async def _send_text(self, text: bytes) -> None:
        if self._closed:
            raise ClientDisconnected
        # Several tasks may wait here for the same slow reader: the first one's time counts.
        mine = self._writing_since_s is None
        if mine:
            self._writing_since_s = time.monotonic()
        try:
            await self._send({"type": "websocket.send", "text": text.decode()})
        finally:
            if mine:
                self._writing_since_s = None


def parse_message(message: Any) -> Any:
    """The event in a message.

    Raises:
        PermanentError: it is none that clients may send.
    """
    if message.get("text") is None:
        msg = "Send events as text frames: binary ones are not understood."
        raise PermanentError(msg, code="binary_frame")
    return parse_event(parse_object(message["text"]))
