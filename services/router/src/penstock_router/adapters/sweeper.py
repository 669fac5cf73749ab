"""Ends what nobody ended: a fold over EVENTS' headers, and `failed (expired)` under ELS."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from typing import Final

from penstock_router import metrics
from penstock_router.adapters.tasks import Tasks
from penstock_router.domain.admission import expired_fact
from penstock_router.domain.open_requests import OpenRequest, OpenRequests
from penstock_router.ports import RequestLog
from penstock_shared.contracts import subjects
from penstock_shared.contracts.errors import TransientError
from penstock_shared.contracts.requests import (
    MAX_DEADLINE_S,
    TERMINAL_TYPES,
    AttemptFailed,
    RequestEnded,
    RequestRouted,
)
from penstock_shared.contracts.streams import EVENTS
from penstock_shared.runtime.broker import Broker, SequenceConflictError, StoredMessage
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.ordered import OrderedReader
from penstock_shared.runtime.request_log import DEADLINE_HEADER, UnreadableFactError
from penstock_shared.runtime.telemetry import log

_LOOK_EVERY_S: Final = 0.5
_RETRY_S: Final = 2.0
_CATCH_UP_S: Final = 10.0
"""How long a start waits for the counts; until they are whole a tenant may exceed its share."""
_BURST: Final = 256
"""Facts between two looks at what else the process has to do: about two milliseconds."""
_STILL_OPEN: Final = frozenset({RequestRouted.TYPE, AttemptFailed.TYPE})


class Sweeper:
    """Keeps `open_requests`, and ends what expires.

    Every router runs one; expected-last-sequence lets exactly one of them win.
    """

    def __init__(
        self,
        broker: Broker,
        request_log: RequestLog,
        open_requests: OpenRequests,
        clock: Clock,
        *,
        source: str,
        on_ended: Callable[[str], None] = lambda _: None,
        on_fact: Callable[[StoredMessage], None] = lambda _: None,
    ) -> None:
        """`on_ended` hears the subject of every request whose terminal is folded.

        `on_fact` hears every fact, without its payload; at the start only each request's last one.
        """
        self._on_ended = on_ended
        self._on_fact = on_fact
        self._log = request_log
        self._open = open_requests
        self._clock = clock
        self._source = source
        self._reader = OrderedReader(
            broker,
            EVENTS,
            subjects.EVERY_REQUEST_EVENT,
            last_per_subject=True,
            headers_only=True,
        )
        self._tasks = Tasks()

    async def start(self) -> None:
        """Read what EVENTS holds of every request, then follow it, and sweep."""
        await self._reader.start()
        try:
            async with asyncio.timeout(_CATCH_UP_S):
                for _ in range(self._reader.pending_at_start):
                    self._fold(await self._reader.get())
        except TimeoutError:
            log().warning("sweep.still_catching_up", open=len(self._open))
        self._tasks.spawn("sweeper-follow", self._follow())
        self._tasks.spawn("sweeper-sweep", self._sweep())

    def problems(self) -> list[str]:
        """Which of its tasks are gone."""
        return self._tasks.gone()

    async def stop(self) -> None:
        """Stop both."""
        await self._tasks.stop()
        await self._reader.stop()

    async def _follow(self) -> None:
        while True:
            self._fold(await self._reader.get())
            for _ in range(_BURST):
                message = self._reader.get_nowait()
                if message is None:
                    break
                self._fold(message)
            metrics.OPEN_REQUESTS.set(len(self._open))
            await asyncio.sleep(0)

    def _fold(self, message: StoredMessage) -> None:
        if message.event_type in TERMINAL_TYPES:
            self._open.fold_ended(message.subject, message.sequence)
            self._on_ended(message.subject)
        elif message.event_type in _STILL_OPEN:
            self._open.fold_open(message.subject, message.sequence, self._deadline_unix_s(message))
        else:
            log().warning("sweep.unknown_fact", sequence=message.sequence)
            return
        self._on_fact(message)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            for request in self._open.take_expired(self._clock.now().timestamp()):
                await self._end(request)

    async def _end(self, request: OpenRequest) -> None:
        """End it, or give it back; one that cannot be read is passed over until a restart."""
        try:
            await self._expire(request)
        except UnreadableFactError as error:
            log().error("sweep.unreadable", sequence=request.sequence, code=error.code)
        except (TransientError, SequenceConflictError) as error:
            # A conflict may be a terminal, which the fold will tell; or what was read was old.
            log().info("sweep.postponed", code=error.code)
            self._open.postpone(request, self._clock.now().timestamp() + _RETRY_S)
        except Exception as error:  # noqa: BLE001  one bad request must not end the sweeping
            log().error("sweep.failed", kind=type(error).__name__, exc_info=error)

    async def _expire(self, request: OpenRequest) -> None:
        parsed = subjects.parse(request.subject)
        request_id = parsed.rest[-1]
        found = await self._log.last_fact(parsed.tenant, request_id)
        if found is None:  # the fold has seen a fact: this replica lags behind
            msg = "The event log is catching up."
            raise TransientError(msg, code="event_log_unavailable")
        sequence, fact = found
        if isinstance(fact, RequestEnded):
            return
        ended = expired_fact(fact, self._clock.now())
        await self._log.write_ended(ended, sequence, source=self._source)
        metrics.EXPIRED.inc()
        log().info("request.expired", request_id=request_id)

    def _deadline_unix_s(self, message: StoredMessage) -> float:
        """From the header; if it says nothing, the latest that a deadline can be."""
        with contextlib.suppress(KeyError, ValueError):
            deadline_unix_s = float(message.headers[DEADLINE_HEADER])
            if math.isfinite(deadline_unix_s):
                return deadline_unix_s
        log().warning("sweep.no_deadline", sequence=message.sequence)
        return (message.time or self._clock.now()).timestamp() + MAX_DEADLINE_S
