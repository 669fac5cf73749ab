"""The responses of one WebSocket, side by side: each is a task that passes its events on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.utils import ClientDisconnected

from penstock_realtime import metrics
from penstock_realtime.domain.create_request import create_request
from penstock_realtime.domain.rendering import EventStream, Framing, delta_before
from penstock_realtime.errors import FeedClosedError
from penstock_realtime.http.outlet import Outlet
from penstock_realtime.http.socket_events import CreateResponse
from penstock_realtime.ports import Budget, Policy
from penstock_realtime.serving.admission import Admissions, Call
from penstock_realtime.serving.lookup import Lookup
from penstock_realtime.serving.resuming import reattach
from penstock_realtime.serving.sessions import Session, Sessions
from penstock_realtime.serving.streaming import events
from penstock_shared.contracts.errors import (
    NotFoundError,
    PenstockError,
    RateLimitedError,
    public_error,
)
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.clock import IdSource
from penstock_shared.runtime.telemetry import log

Work = Coroutine[Any, Any, None]


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


class SocketResponses:
    """Those that run on one socket."""

    def __init__(self, services: SocketServices, outlet: Outlet) -> None:
        self._services = services
        self._outlet = outlet
        self._budget = Budget(services.buffer_bytes)
        self._running: dict[str, asyncio.Task[None]] = {}
        """Task by request id."""

    def __contains__(self, request_id: str) -> bool:
        """Whether it runs here."""
        return request_id in self._running

    def __len__(self) -> int:
        """How many run."""
        return len(self._running)

    @property
    def waiting_bytes(self) -> int:
        """Text that waits for the reader."""
        return self._budget.used

    @property
    def only(self) -> str | None:
        """The one that runs, if it is one."""
        return next(iter(self._running)) if len(self._running) == 1 else None

    async def ended(self) -> None:
        """Wait until none runs."""
        # No event of its own: it would cost every idle socket 0.8 kB.
        while self._running:
            await asyncio.wait(self._running.values())
            await asyncio.sleep(0)  # what is done takes itself off the list

    def cancel(self) -> None:
        """Stop passing events on; the responses themselves are not touched."""
        for task in self._running.values():
            task.cancel()

    async def stop(self) -> None:
        """The same, and wait for it."""
        self.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    def create(self, session: Session, call: Call, event: CreateResponse) -> None:
        """Admit a response and pass it on.

        Raises:
            RateLimitedError: as many run as may.
        """
        self._run(call.request_id, event.stream_id, lambda: self._created(session, call, event))

    def resume(self, session: Session, request_id: str, stream_id: str | None, after: int) -> None:
        """Pass on what follows the event numbered `after` of a response that was accepted before.

        Raises:
            RateLimitedError: as many run as may.
        """
        self._run(
            request_id, stream_id, lambda: self._resumed(session, request_id, stream_id, after)
        )

    def _run(self, request_id: str, stream_id: str | None, work: Callable[[], Work]) -> None:
        if len(self._running) >= self._services.max_responses:
            msg = f"{len(self._running)} responses run on this connection: wait for one to end."
            raise RateLimitedError(msg, code="too_many_responses")
        task = asyncio.create_task(self._guarded(stream_id, work))
        self._running[request_id] = task
        task.add_done_callback(lambda _: self._done(request_id))

    def _done(self, request_id: str) -> None:
        self._running.pop(request_id, None)

    async def _guarded(self, stream_id: str | None, work: Callable[[], Work]) -> None:
        try:
            await work()
        except (ClientDisconnected, FeedClosedError):
            metrics.WS_SEND_ERRORS.inc()
        except PenstockError as error:
            await self._outlet.error(error, stream_id)
        except Exception as error:  # noqa: BLE001  a bug ends one response, not the socket
            log().error("socket.response_failed", exc_info=error)
            await self._outlet.error(public_error(error), stream_id)

    async def _created(self, session: Session, call: Call, event: CreateResponse) -> None:
        admissions, sessions = self._services.admissions, self._services.sessions
        try:
            given = create_request(event.parameters)
        except PenstockError:
            await admissions.limit(call, None)  # it counts all the same
            raise
        (await admissions.limit(call, given)).require()
        # Before it is durable: a socket that is lost in between must not leave it to nobody.
        sessions.started(session, call.request_id, event.stream_id, kept=given.background)
        try:
            admitted = await admissions.admit(
                call, given, Lane.INTERACTIVE, self._budget, Policy(session.policy)
            )
        except PenstockError:
            sessions.ended(session, call.request_id)
            raise
        framing = Framing(server_sent=False, stream_id=event.stream_id)
        await self._pass_on(
            events(
                admitted.following,
                EventStream(admitted.head, framing),
                direct=self._outlet,
                on_end=lambda final: admissions.settle(admitted, final),
            )
        )
        sessions.ended(session, call.request_id)
        metrics.REQUESTS.labels("websocket", 200).inc()

    async def _resumed(
        self, session: Session, request_id: str, stream_id: str | None, after: int
    ) -> None:
        sessions, tenant = self._services.sessions, session.tenant
        in_session = request_id in session.responses
        if not in_session:
            sessions.follow(tenant, request_id, session.session_id)
            metrics.RESUMED.labels("response").inc()
        lookup, policy = self._services.lookup, Policy(session.policy)
        try:
            head, following = await (
                reattach(lookup.sources, tenant, request_id, self._budget, policy)
                if in_session
                else lookup.follow(tenant, request_id, self._budget, policy)  # as by its id
            )
            framing = Framing(server_sent=False, stream_id=stream_id)
            renderer = EventStream(head, framing, after)
            await self._pass_on(
                events(following, renderer, after=delta_before(after), direct=self._outlet)
            )
        except NotFoundError:
            sessions.ended(session, request_id)  # there is nothing to come back to
            raise
        sessions.ended(session, request_id)

    async def _pass_on(self, stream: AsyncGenerator[list[bytes], None]) -> None:
        async with aclosing(stream) as batches:
            async for batch in batches:
                if batch:
                    await self._outlet.events(batch)
