"""What realtime answers over NATS: who may connect, how a request stands, how good it was."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, TypeVar

from nats.aio.msg import Msg
from pydantic import BaseModel, ValidationError

from penstock_realtime import metrics
from penstock_realtime.domain.parameters import invalid, parse_object
from penstock_realtime.ports import LoginCodec, LoginRequest
from penstock_realtime.serving.authentication import Authentication
from penstock_realtime.serving.feedback import Feedbacks
from penstock_realtime.serving.lookup import Lookup
from penstock_realtime.serving.replay import deltas_after
from penstock_shared.contracts.errors import (
    ErrorReply,
    PenstockError,
    RateLimitedError,
    public_error,
)
from penstock_shared.contracts.feedback import FeedbackGiven, GiveFeedback
from penstock_shared.contracts.ids import parse_request_id
from penstock_shared.contracts.responses import RequestGet, RequestState
from penstock_shared.contracts.subjects import may_reply_to, parse, tenant_permissions
from penstock_shared.contracts.submissions import NATS_KEY
from penstock_shared.runtime.access import AccessControl, Permission
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.gcra import wait_us
from penstock_shared.runtime.local_rate_limit import LocalBuckets
from penstock_shared.runtime.rate_limit import Demand, RateLimiter
from penstock_shared.runtime.rate_tiers import Limit
from penstock_shared.runtime.telemetry import log

Answer: TypeAlias = Callable[[str, bytes], Awaitable[BaseModel]]
"""Of a tenant's question; raises PenstockError with what the tenant is told."""
M = TypeVar("M", bound=BaseModel)
_QUESTIONS_AT_ONCE: Final = 64
_LOGINS_AT_ONCE: Final = 256
_PER_MINUTE: Final = 6000
"""What one tenant may ask of one instance; a replay, which reads the stream, counts as ten."""
_REPLAY_COST: Final = 10


class Questions:
    """Answers what tenants ask on one subject, several at a time."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._slots = asyncio.Semaphore(_QUESTIONS_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def on_question(self, msg: Msg) -> None:
        """Answer to the tenant's own inbox, with an `ErrorReply` where it cannot be done."""
        tenant = parse(msg.subject).tenant
        if not may_reply_to(tenant, msg.reply):
            log().warning("question.foreign_inbox", tenant=tenant)
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
            answer = await self._answer(tenant, msg.data)
        except Exception as error:  # noqa: BLE001  whoever asks gets an answer
            if not isinstance(error, PenstockError):
                log().error("question.failed", exc_info=error)
            answer = ErrorReply(error=public_error(error).body())
        await msg.respond(answer.model_dump_json().encode())


class RequestGetHandler:
    """Answers `v1.<tenant>.requests.get`."""

    def __init__(self, lookup: Lookup, clock: Clock) -> None:
        self._lookup = lookup
        self._clock = clock
        self._asked = LocalBuckets()

    async def answer(self, tenant: str, data: bytes) -> RequestState:
        """How a request stands.

        Raises:
            PenstockError: as it is told to whoever asks.
        """
        self._count(tenant, 1)  # before a megabyte of it is parsed
        given = parse_object(data)
        if "after_delta" in given:
            self._count(tenant, _REPLAY_COST - 1)
        asked = _parsed(RequestGet, given)
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


class FeedbackHandler:
    """Answers `v1.<tenant>.requests.feedback`, under the limits of what is submitted over NATS."""

    def __init__(self, feedbacks: Feedbacks, access: AccessControl, limiter: RateLimiter) -> None:
        self._feedbacks = feedbacks
        self._access = access
        self._limiter = limiter

    async def answer(self, tenant: str, data: bytes) -> FeedbackGiven:
        """State it.

        Raises:
            PenstockError: as it is told to whoever asks.
        """
        record = self._access.active_tenant(tenant)
        (await self._limiter.take(Demand(record, NATS_KEY))).require()
        given = _parsed(GiveFeedback, parse_object(data))
        request_id = parse_request_id(given.request_id)
        fact = await self._feedbacks.give(tenant, request_id, NATS_KEY, given.score)
        return FeedbackGiven(request_id=request_id, score=fact.score, given_at=fact.given_at)


def _parsed(model: type[M], given: dict[str, Any]) -> M:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise invalid(error) from error


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
