"""Sessions: what outlives a WebSocket, and what becomes of its responses when it is gone.

A session is written to the store when its first response starts, so an idle socket costs the store
nothing. Whoever resumes it, on any instance, claims it in a new term; what an earlier holder writes
afterwards changes nothing, and its socket is closed as soon as it hears of it: at once through its
peers, at its next write otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from penstock_realtime import metrics
from penstock_realtime.ports import Peers, RunningResponse, SessionState, SessionStore
from penstock_realtime.serving.orphans import Orphans
from penstock_realtime.serving.session_writer import SessionWriter
from penstock_shared.contracts.errors import NotFoundError, PenstockError
from penstock_shared.contracts.ids import parse_request_id
from penstock_shared.runtime.clock import IdSource
from penstock_shared.runtime.telemetry import log

_REFRESHES: Final = 3
"""How often an open session is extended per window."""
_STOP_WITHIN_S: Final = 1.0

OnTaken = Callable[[], None]
"""Another socket holds the session now: close this one with 4001."""


@dataclass(eq=False, slots=True)
class Session:
    """One session on the socket that holds it."""

    tenant: str
    session_id: str
    holder: str
    term: int
    policy: str
    on_taken: OnTaken
    responses: dict[str, RunningResponse] = field(default_factory=dict)
    """Those that may still run, by request id."""
    followed: set[str] = field(default_factory=set)
    """Responses of others that are delivered here."""
    stored: bool = False
    """It has had a response, so the store knows it."""

    def state(self) -> SessionState:
        """What is written of it."""
        running = dict(self.responses)
        return SessionState(
            self.tenant, self.session_id, self.holder, self.term, self.policy, running
        )


@dataclass(frozen=True, slots=True)
class Terms:
    """How long things last."""

    grace_s: float = 30.0
    """How long the responses of a socket that was lost may go on."""
    window_s: float = 900.0
    """How long a session whose socket was lost can be resumed."""


class Sessions:
    """The sessions of this instance's sockets."""

    def __init__(
        self,
        store: SessionStore,
        peers: Peers,
        orphans: Orphans,
        ids: IdSource,
        *,
        instance: str,
        terms: Terms,
    ) -> None:
        self._store = store
        self._peers = peers
        self._orphans = orphans
        self._ids = ids
        self._instance = instance
        self._terms = terms
        self._open: dict[tuple[str, str], Session] = {}
        self._follows: set[tuple[str, str, str]] = set()
        """Tenant, request id and follower: those that this instance has told the store of."""
        self._writer = SessionWriter(store, self._on_refused)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Write in the background, and keep open sessions alive."""
        self._tasks = [
            asyncio.create_task(self._writer.run(), name="session-writer"),
            asyncio.create_task(self._refresh(), name="session-refresh"),
        ]

    async def stop(self) -> None:
        """Write what waits, for a second at most."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(_STOP_WITHIN_S):
                await self._writer.flush()
        except (PenstockError, TimeoutError):
            log().warning("sessions.not_written", code="stopping")

    def open(self, tenant: str, policy: str, on_taken: OnTaken) -> Session:
        """A new session, so far known to nobody else."""
        session = Session(tenant, self._ids.new(), self._holder(), 1, policy, on_taken)
        self._open[tenant, session.session_id] = session
        return session

    async def resume(self, tenant: str, session_id: str, on_taken: OnTaken) -> Session:
        """Take a session over from whatever socket holds it.

        Raises:
            PermanentError: `session_id` is no UUID.
            NotFoundError: past the window, never heard of, or another tenant's.
            UnavailableError: the store does not answer.
        """
        session_id = parse_request_id(session_id)
        if self._writer.owes(tenant, session_id):
            await self._writer.flush()  # what it started a moment ago belongs to it
        holder = self._holder()
        claimed = await self._store.claim(tenant, session_id, holder, self._ttl_s())
        if claimed is None:
            metrics.SESSIONS_RESUMED.labels("expired").inc()
            msg = (
                "This session is past its window or unknown: start a new one and retrieve its "
                "responses by their ids."
            )
            raise NotFoundError(msg, code="session_expired", param="session_id")
        state, before = claimed
        self.on_taken(state)
        running = dict(state.responses)
        session = Session(
            tenant, session_id, holder, state.term, state.policy, on_taken, running, stored=True
        )
        metrics.SESSIONS_RESUMED.labels("resumed").inc()
        if (tenant, session_id) in self._open:  # claimed again, and that answer came first
            on_taken()
            return session
        self._open[tenant, session_id] = session
        self._write(session, urgent=True)  # refused, if it was claimed again meanwhile
        if before.partition("/")[0] != self._instance:
            await self._peers.tell_taken(state)
        return session

    def started(
        self,
        session: Session,
        request_id: str,
        stream_id: str | None = None,
        *,
        kept: bool = False,
    ) -> None:
        """A response runs in the session; `kept`: in the background, or with an idempotency key."""
        session.responses[request_id] = RunningResponse(stream_id, kept)
        first, session.stored = not session.stored, True
        self._write(session, urgent=first)

    def ended(self, session: Session, request_id: str) -> None:
        """A response has ended, and its last event was sent."""
        session.responses.pop(request_id, None)
        self.unfollow(session.tenant, request_id, session.session_id)
        self._write(session)

    def changed(self, session: Session) -> None:
        """Its policy is another one."""
        self._write(session)

    def lost(self, session: Session) -> None:
        """The socket went without saying goodbye: its responses have the grace."""
        if not self._is_open(session):
            return
        self._close(session, self._terms.grace_s)
        if not session.stored:
            return
        state = session.state()
        self._writer.put(state, self._terms.window_s, urgent=True, last=True)
        if state.cancellable:
            self._orphans.spawn(self._orphans.after_grace(state, self._terms.grace_s))

    async def left(self, session: Session) -> None:
        """The socket was closed on purpose: forget the session, and cancel what runs in it."""
        if not self._is_open(session):
            return
        self._close(session, 0.0)
        state = session.state()
        self._writer.forget(session.tenant, session.session_id)
        if session.stored:
            self._orphans.spawn(self._quietly(self._store.forget(state)))
        self._orphans.spawn(self._orphans.cancel(session.tenant, state.cancellable))

    def follow(self, tenant: str, request_id: str, follower: str) -> None:
        """Somebody delivers a response that runs in another session: a session, or a request."""
        session = self._open.get((tenant, follower))
        if session is not None:
            session.followed.add(request_id)
            follower = session.holder
        self._follows.add((tenant, request_id, follower))
        work = self._store.follow(tenant, request_id, follower, self._terms.window_s)
        self._orphans.spawn(self._quietly(work))

    def unfollow(self, tenant: str, request_id: str, follower: str) -> None:
        """It does so no more."""
        session = self._open.get((tenant, follower))
        if session is not None:
            session.followed.discard(request_id)
            follower = session.holder
        self._unfollow(tenant, request_id, follower, 0.0)

    def on_taken(self, state: SessionState) -> None:
        """Somebody has claimed a session: `state` is what it is since."""
        session = self._open.get((state.tenant, state.session_id))
        if session is not None and session.term < state.term:
            self._take(session)

    async def rewrite(self) -> None:
        """Tell the store everything again: it may have lost it, or may know better."""
        for session in tuple(self._open.values()):
            self._write(session, urgent=True)
        await self._quietly(self._follow_again())

    async def _follow_again(self) -> None:
        for follow in tuple(self._follows):
            if follow in self._follows:
                await self._store.follow(*follow, self._terms.window_s)

    def _close(self, session: Session, followed_for_s: float) -> None:
        """Not this instance's any more; what it followed counts as followed for a while."""
        del self._open[session.tenant, session.session_id]
        for request_id in session.followed:
            self._unfollow(session.tenant, request_id, session.holder, followed_for_s)

    def _unfollow(self, tenant: str, request_id: str, follower: str, within_s: float) -> None:
        if (tenant, request_id, follower) in self._follows:
            self._follows.remove((tenant, request_id, follower))
            work = self._store.unfollow(tenant, request_id, follower, within_s)
            self._orphans.spawn(self._quietly(work))

    def _holder(self) -> str:
        return f"{self._instance}/{self._ids.new()}"

    def _ttl_s(self) -> float:
        # A socket may be lost right before it would have been refreshed, and its instance with it.
        return self._terms.window_s * (1 + 1 / _REFRESHES)

    def _write(self, session: Session, *, urgent: bool = False) -> None:
        if session.stored and self._is_open(session):
            self._writer.put(session.state(), self._ttl_s(), urgent=urgent)

    def _is_open(self, session: Session) -> bool:
        return self._open.get((session.tenant, session.session_id)) is session

    def _on_refused(self, state: SessionState) -> None:
        session = self._open.get((state.tenant, state.session_id))
        if session is not None and session.holder == state.holder:
            self._take(session)

    def _take(self, session: Session) -> None:
        metrics.SESSIONS_RESUMED.labels("taken").inc()
        self._close(session, self._terms.grace_s)
        self._writer.forget(session.tenant, session.session_id)
        session.on_taken()

    async def _quietly(self, work: Awaitable[None]) -> None:
        try:
            await work
        except PenstockError as error:
            metrics.SESSION_STORE_FAILURES.inc()
            log().warning("sessions.not_written", code=error.code)

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(self._terms.window_s / _REFRESHES)
            await self.rewrite()
