"""What realtime answers over NATS: who may connect, and how a request stands."""

from __future__ import annotations

import asyncio
from typing import Final

from nats.aio.msg import Msg
from pydantic import ValidationError

from penstock_realtime import metrics
from penstock_realtime.domain.parameters import invalid, parse_object
from penstock_realtime.ports import LoginCodec, LoginRequest
from penstock_realtime.serving.authentication import Authentication
from penstock_realtime.serving.lookup import Lookup
from penstock_realtime.serving.replay import deltas_after
from penstock_shared.contracts.errors import (
    ErrorReply,
    PenstockError,
    RateLimitedError,
    public_error,
)
from penstock_shared.contracts.ids import parse_request_id
from penstock_shared.contracts.responses import RequestGet, RequestState
from penstock_shared.contracts.subjects import may_reply_to, parse, tenant_permissions
from penstock_shared.runtime.access import Permission
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.gcra import wait_us
from penstock_shared.runtime.local_rate_limit import LocalBuckets
from penstock_shared.runtime.rate_tiers import Limit
from penstock_shared.runtime.telemetry import log

_LOOKUPS_AT_ONCE: Final = 64
_LOGINS_AT_ONCE: Final = 256
_PER_MINUTE: Final = 6000
"""What one tenant may ask of one instance; a replay, which reads the stream, counts as ten."""
_REPLAY_COST: Final = 10


class RequestGetHandler:
    """Answers `v1.<tenant>.requests.get`."""

    def __init__(self, lookup: Lookup, clock: Clock) -> None:
        self._lookup = lookup
        self._clock = clock
        self._asked = LocalBuckets()
        self._slots = asyncio.Semaphore(_LOOKUPS_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def on_request_get(self, msg: Msg) -> None:
        """Answer with a `RequestState`, or with an `ErrorReply`; several at a time."""
        tenant = parse(msg.subject).tenant
        if not may_reply_to(tenant, msg.reply):
            log().warning("request_get.foreign_inbox", tenant=tenant)
            return
        await self._slots.acquire()  # the subscription's own queue holds the rest
        task = asyncio.create_task(self._respond(tenant, msg))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()

    async def _respond(self, tenant: str, msg: Msg) -> None:
        try:
            state = await self._state(tenant, msg.data)
            answer = state.model_dump_json().encode()
        except Exception as error:  # noqa: BLE001  whoever asks gets an answer
            if not isinstance(error, PenstockError):
                log().error("request_get.failed", exc_info=error)
            answer = ErrorReply(error=public_error(error).body()).model_dump_json().encode()
        await msg.respond(answer)

    async def _state(self, tenant: str, data: bytes) -> RequestState:
        self._count(tenant, 1)  # before a megabyte of it is parsed
        given = parse_object(data)
        if "after_delta" in given:
            self._count(tenant, _REPLAY_COST - 1)
        try:
            asked = RequestGet.model_validate(given)
        except ValidationError as error:
            raise invalid(error) from error
        request_id = parse_request_id(asked.request_id)
        state = await self._lookup.state(tenant, request_id)
        if asked.after_delta is None or state.final is not None:
            return state
        frames = self._lookup.sources.frames
        deltas, more = await deltas_after(frames, tenant, request_id, asked.after_delta)
        return state.model_copy(update={"deltas": deltas, "more": more})

    def _count(self, tenant: str, cost: int) -> None:
        limit = Limit(tenant, "requests", "of this tenant", _PER_MINUTE, cost, shared=False)
        now_us = int(self._clock.monotonic_s() * 1_000_000)
        fits, (level,) = self._asked.take([limit], now_us)
        if not fits:
            wait_s = wait_us(level, _PER_MINUTE, cost) / 1_000_000
            msg = f"Over {limit.name} on 'requests.get': come back in {wait_s:.1f} s."
            raise RateLimitedError(msg, retry_after_s=wait_s)


class LoginHandler:
    """Answers nats-server's auth callout: who comes in is decided as at the HTTP edge."""

    def __init__(self, authentication: Authentication, codec: LoginCodec) -> None:
        self._authentication = authentication
        self._codec = codec
        self._slots = asyncio.Semaphore(_LOGINS_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def on_login(self, msg: Msg) -> None:
        """Let a caller in with its tenant's permissions and its role's, or keep it out.

        Several at a time: one whose identity provider is slow delays nobody else.
        """
        await self._slots.acquire()  # the subscription's own queue holds the rest
        task = asyncio.create_task(self._respond(msg))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()

    async def _respond(self, msg: Msg) -> None:
        try:
            request = self._codec.parse(msg.data)
        except PenstockError as error:  # not the server's words: there is nobody to answer
            log().warning("login.malformed", code=error.code)
            return
        outcome = "granted"
        try:
            answer = await self._grant(request)
        except Exception as error:  # noqa: BLE001  the server waits for an answer, whatever failed
            if not isinstance(error, PenstockError):
                log().error("login.failed", exc_info=error)
            outcome, answer = "refused", self._codec.refuse(request, public_error(error).code)
        metrics.NATS_LOGINS.labels(outcome).inc()
        await msg.respond(answer)

    async def _grant(self, request: LoginRequest) -> bytes:
        identity = await self._authentication.identify(request.secret)
        tenant = identity.tenant.tenant
        permissions = tenant_permissions(tenant, may_write=identity.may(Permission.WRITE))
        return self._codec.grant(request, identity, permissions)
