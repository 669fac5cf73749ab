"""Ends what nobody ended: a fold over EVENTS' headers, and `failed (expired)` under ELS."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from penstock_router import metrics
from penstock_router.adapters.nats_request_log import DEADLINE_HEADER
from penstock_router.domain.admission import expired_fact
from penstock_router.domain.open_requests import OpenRequest, OpenRequests
from penstock_router.ports import RequestLog
from penstock_shared.contracts import subjects
from penstock_shared.contracts.errors import TransientError
from penstock_shared.contracts.requests import RequestRouted
from penstock_shared.contracts.streams import EVENTS
from penstock_shared.runtime.broker import Broker, SequenceConflictError, StoredMessage
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.ordered import OrderedReader
from penstock_shared.runtime.telemetry import log

_LOOK_EVERY_S: Final = 0.5
_RETRY_S: Final = 2.0


class Sweeper:
    """Every router runs one; expected-last-sequence lets exactly one of them win."""

    def __init__(
        self, broker: Broker, request_log: RequestLog, clock: Clock, *, source: str, grace_s: float
    ) -> None:
        self._log = request_log
        self._clock = clock
        self._source = source
        self._grace_s = grace_s
        self._open = OpenRequests()
        self._reader = OrderedReader(
            broker,
            EVENTS,
            subjects.EVERY_REQUEST_EVENT,
            last_per_subject=True,
            headers_only=True,
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to follow EVENTS and to sweep."""
        await self._reader.start()
        self._tasks = [
            asyncio.create_task(self._follow(), name="sweeper-follow"),
            asyncio.create_task(self._sweep(), name="sweeper-sweep"),
        ]

    async def stop(self) -> None:
        """Stop both."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._reader.stop()

    async def _follow(self) -> None:
        while True:
            message: StoredMessage | None = await self._reader.get()
            while message is not None:
                self._note(message)
                message = self._reader.get_nowait()
            metrics.OPEN_REQUESTS.set(len(self._open))

    def _note(self, message: StoredMessage) -> None:
        if message.event_type == RequestRouted.TYPE:
            deadline_unix_s = float(message.headers[DEADLINE_HEADER])
            self._open.routed(message.subject, message.sequence, deadline_unix_s + self._grace_s)
        else:
            self._open.ended(message.subject)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            now_unix_s = self._clock.now().timestamp()
            for request in self._open.take_expired(now_unix_s):
                try:
                    await self._expire(request)
                except TransientError as error:
                    log().warning("sweep.postponed", code=error.code)
                    self._open.routed(request.subject, request.sequence, now_unix_s + _RETRY_S)

    async def _expire(self, request: OpenRequest) -> None:
        parsed = subjects.parse(request.subject)
        request_id = parsed.rest[1]
        found = await self._log.last_fact(parsed.tenant, request_id)
        sequence, fact = found or (0, None)
        if not isinstance(fact, RequestRouted):
            return
        with contextlib.suppress(SequenceConflictError):  # somebody ended it first
            ended = expired_fact(fact, self._clock.now())
            await self._log.write_expired(ended, sequence, source=self._source)
            metrics.EXPIRED.inc()
            log().info("request.expired", request_id=request_id)
