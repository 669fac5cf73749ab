"""Pushes usage to a provider's meter: written down first, told, and settled by what is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from penstock_billing import metrics
from penstock_billing.domain.pushing import Step, arrived, next_step
from penstock_billing.ports.pushing import Push, PushBook, PushOutcome, UsageMeter
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.telemetry import log

_AT_ONCE: Final = 1_000


class UsagePusher:
    """Tells the meter what the ledger has.

    Whoever dies anywhere leaves a row that says what may have been sent: the next look sends the
    same event again, which counts once, or asks the meter where it is too late for that.
    """

    def __init__(self, book: PushBook, meter: UsageMeter, clock: Clock) -> None:
        self._book = book
        self._meter = meter
        self._clock = clock

    async def look(self) -> int:
        """Push what is due; how many pushes ended.

        Raises:
            PenstockError: Postgres or the provider does not answer, or refuses us.
        """
        now = self._clock.now()
        await self._book.plan(now)
        waiting = await self._book.unsettled(_AT_ONCE)
        try:
            return await self._settle(waiting)
        finally:
            backlog = await self._book.backlog()
            oldest = backlog.oldest_used_at
            metrics.PUSH_BACKLOG.set(backlog.pushes)
            metrics.PUSH_AGE.set(0 if oldest is None else max(0, (now - oldest).total_seconds()))

    async def _settle(self, waiting: Sequence[Push]) -> int:
        now = self._clock.now()
        steps = [(push, next_step(push, now)) for push in waiting]
        ended = await self._send([push for push, step in steps if step is Step.SEND])
        for push, step in steps:
            if step is Step.ASK:
                ended += await self._ask(push)
            elif step is Step.GIVE_UP:
                log().error("push.too_old", push=push.identifier)
                ended += await self._end(push, PushOutcome.REFUSED)
        return ended

    async def _send(self, pushes: Sequence[Push]) -> int:
        if not pushes:
            return 0
        await self._book.sending(pushes, self._clock.now())
        ended = 0
        for push, outcome in zip(pushes, await self._meter.report(pushes), strict=True):
            if outcome is None:
                metrics.PUSHES.labels("unknown").inc()
            else:
                ended += await self._end(push, outcome)
        return ended

    async def _ask(self, push: Push) -> int:
        """Too long in doubt to be sent again unseen. A customer that is gone stops no other."""
        taken = await self._book.taken_cents(push.tenant, push.period)
        try:
            summed = await self._meter.summed_cents(push.customer, push.period)
        except PermanentError as error:
            metrics.PUSHES.labels("unclear").inc()
            log().error("push.unclear", push=push.identifier, code=error.code)
            return 0
        there = arrived(push, taken, summed)
        if there is None:
            metrics.PUSHES.labels("unclear").inc()
            log().error("push.unclear", push=push.identifier, taken=taken, summed=summed)
            return 0
        return await self._end(push, PushOutcome.SUMMED if there else PushOutcome.ABSENT)

    async def _end(self, push: Push, outcome: PushOutcome) -> int:
        await self._book.settle(push, outcome, self._clock.now())
        metrics.PUSHES.labels(outcome.value).inc()
        return 1
