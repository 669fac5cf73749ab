"""Ends requests for which quota was reserved and which were never routed: their router died.

A reservation ends only by a fact that billing has read, so such a request gets one: `failed
(expired)` as the first fact on its subject. Whoever still routes it then, however late, finds a
fact there and is fenced. No clock decides: the deadline only says when to look.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from penstock_router import metrics
from penstock_router.domain.admission import expired_fact
from penstock_router.ports import HeldRequest, OverdueReservations, RequestLog
from penstock_shared.contracts.errors import TransientError
from penstock_shared.runtime.broker import SequenceConflictError
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.request_log import UnreadableFactError
from penstock_shared.runtime.telemetry import log

_LOOK_EVERY_S: Final = 10.0


class Orphans:
    """Every router runs one; expected-last-sequence lets exactly one of them win."""

    def __init__(
        self,
        reservations: OverdueReservations,
        request_log: RequestLog,
        clock: Clock,
        *,
        source: str,
        grace_s: float,
    ) -> None:
        """`grace_s`: how long after its deadline a reservation is looked at."""
        self._reservations = reservations
        self._log = request_log
        self._clock = clock
        self._source = source
        self._grace = timedelta(seconds=grace_s)

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            try:
                await self.look()
            except TransientError as error:
                log().info("orphans.postponed", code=error.code)
            except Exception as error:  # noqa: BLE001  the next look may succeed
                log().error("orphans.failed", kind=type(error).__name__, exc_info=error)

    async def look(self) -> int:
        """End every orphan that there is now; returns how many this router has ended.

        Raises:
            UnavailableError: PostgreSQL or the event log does not answer.
        """
        before = self._clock.now() - self._grace
        ended = 0
        last: HeldRequest | None = None
        while page := await self._reservations.overdue(before, last):
            for request in page:
                ended += await self._end_if_it_can_be_read(request)
            last = page[-1]
        return ended

    async def _end_if_it_can_be_read(self, request: HeldRequest) -> bool:
        """What cannot is passed over: those behind it are ended all the same."""
        try:
            return await self._end(request)
        except UnreadableFactError as error:
            log().error("orphans.unreadable", request_id=request.request_id, code=error.code)
            return False

    async def _end(self, request: HeldRequest) -> bool:
        """Whether it was one: what has a fact is ended by others, and billing will read of it."""
        if await self._log.last_fact(request.tenant, request.request_id) is not None:
            return False
        fact = expired_fact(request, self._clock.now())
        try:
            await self._log.write_ended(fact, 0, source=self._source)
        except SequenceConflictError:
            return False
        metrics.ORPHANS.inc()
        log().warning("request.orphaned", request_id=request.request_id)
        return True
