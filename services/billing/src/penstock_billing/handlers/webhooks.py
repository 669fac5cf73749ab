"""Webhooks: stored and answered at once, handled later, and looked for where none came."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from penstock_billing import metrics
from penstock_billing.domain.payments import CLAIM
from penstock_billing.handlers.periodic import tolerated
from penstock_billing.ports.notices import Arrival, MissedNotices, NoticeInbox, NoticeTurn
from penstock_billing.ports.payments import Notice, NoticeHandler, PaymentGateway, Provider
from penstock_shared.contracts.errors import ConflictError, PenstockError, TransientError
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.telemetry import log

_FIRST_PAUSE: Final = timedelta(seconds=2)
_LONGEST_PAUSE: Final = timedelta(hours=1)
_PARKED_AFTER: Final = 8
"""Failures that do not pass by themselves."""
_LISTED_FOR: Final = timedelta(days=7)
"""Stripe delivers for three days and lists events for 30 (docs.stripe.com/webhooks#retries)."""
_KEPT_FOR: Final = timedelta(days=60)
"""Longer than any event can be listed: none is taken for new a second time."""


class WebhookDesk:
    """Takes deliveries in: what is not a provider's has no effect."""

    def __init__(
        self, gateways: Mapping[Provider, PaymentGateway], inbox: NoticeInbox, clock: Clock
    ) -> None:
        self._gateways = gateways
        self._inbox = inbox
        self._clock = clock
        self.arrived = asyncio.Event()
        """Set when there is something to handle."""

    async def on_delivery(
        self, provider: Provider, headers: Mapping[str, str], body: bytes, signature: str | None
    ) -> Arrival:
        """Verify and store. `signature` is what signs this delivery alone, where something does.

        Raises:
            AuthenticationError: not signed by the provider, or not now.
            SchemaError: not of the provider's shape.
            ConflictError: the very same delivery came before.
            UnavailableError: it is not stored: the provider delivers again.
        """
        now = self._clock.now()
        try:
            notice = self._gateways[provider].read_notice(headers, body, now)
            arrival = await self._inbox.store(notice, signature, now)
        except PenstockError as error:
            metrics.WEBHOOKS.labels(provider.value, error.code).inc()
            log().warning("webhook.refused", provider=provider.value, code=error.code)
            raise
        metrics.WEBHOOKS.labels(provider.value, arrival.value).inc()
        if arrival is Arrival.REPLAYED:
            log().warning("webhook.replayed", notice=notice.notice_id)
            msg = "This very delivery has arrived before: another one has its own signature."
            raise ConflictError(msg, code="webhook_replayed")
        if arrival is Arrival.NEW:
            self.arrived.set()
        return arrival


class NoticeDesk:
    """Handles stored notices: each until its effect is committed, in whatever order they came.

    Those of some kinds have a handler of their own, all others that of their provider.
    """

    def __init__(
        self,
        inbox: NoticeInbox,
        by_kind: Mapping[str, NoticeHandler],
        by_provider: Mapping[Provider, NoticeHandler],
        arrived: asyncio.Event,
        clock: Clock,
    ) -> None:
        self._inbox = inbox
        self._by_kind = by_kind
        self._by_provider = by_provider
        self._arrived = arrived
        self._clock = clock

    async def run(self, interval_s: float) -> None:
        """Handle what is due, for ever: at once when something arrives, else every so often."""
        while True:
            self._arrived.clear()
            with tolerated("notices"):
                while await self.handle_one():
                    pass
            try:
                async with asyncio.timeout(interval_s):
                    await self._arrived.wait()
            except TimeoutError:
                continue

    async def handle_one(self) -> bool:
        """Handle the first notice that is due; whether there was one.

        A crash after its effect handles it again, which changes nothing: handlers write down what
        the provider says now.
        """
        now = self._clock.now()
        turn = await self._inbox.due(now, now + CLAIM)
        if turn is None:
            return False
        notice = turn.waiting.notice
        try:
            async with asyncio.timeout(CLAIM.total_seconds() / 2):
                await self._handler(notice).on_notice(notice)
        except Exception as error:  # noqa: BLE001  it comes again, or is parked for a person
            await self._failed(turn, error)
        else:
            await turn.done(self._clock.now())
            metrics.NOTICES.labels(notice.provider.value, "done").inc()
        return True

    def _handler(self, notice: Notice) -> NoticeHandler:
        return self._by_kind.get(notice.kind) or self._by_provider[notice.provider]

    async def _failed(self, turn: NoticeTurn, error: Exception) -> None:
        waiting, now = turn.waiting, self._clock.now()
        name = {"notice": waiting.notice.notice_id, "kind": waiting.notice.kind}
        code = getattr(error, "code", type(error).__name__)
        if waiting.attempts >= _PARKED_AFTER and not isinstance(
            error, TransientError | TimeoutError
        ):
            await turn.park(now)
            log().error("notice.parked", code=code, exc_info=error, **name)
            metrics.NOTICES.labels(waiting.notice.provider.value, "parked").inc()
            return
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(waiting.attempts, 12))
        await turn.again(now + pause)
        log().warning("notice.postponed", code=code, **name)
        metrics.NOTICES.labels(waiting.notice.provider.value, "again").inc()


class CatchUp:
    """Looks for notices that could not be delivered, and forgets old ones."""

    def __init__(
        self, missed: MissedNotices, inbox: NoticeInbox, arrived: asyncio.Event, clock: Clock
    ) -> None:
        self._missed = missed
        self._inbox = inbox
        self._arrived = arrived
        self._clock = clock

    async def look(self) -> int:
        """Store what was missed; how many notices that were.

        Raises:
            UnavailableError: Postgres or the provider does not answer.
        """
        now = self._clock.now()
        found = 0
        for notice in await self._missed.undelivered(now - _LISTED_FOR):
            found += await self._store(notice, now)
        if found:
            self._arrived.set()
        await self._inbox.prune(now - _KEPT_FOR)
        return found

    async def _store(self, notice: Notice, now: datetime) -> bool:
        new = await self._inbox.store(notice, None, now) is Arrival.NEW
        if new:
            metrics.WEBHOOKS.labels(notice.provider.value, "listed").inc()
        return new


class AboutInvoices:
    """A `NoticeHandler` that finds out which invoice a notice is about, and hands it on."""

    def __init__(
        self, about_invoice: Callable[[Notice], Awaitable[Notice]], then: NoticeHandler
    ) -> None:
        self._about_invoice = about_invoice
        self._then = then

    async def on_notice(self, notice: Notice) -> None:
        """Ask, and hand it on."""
        await self._then.on_notice(await self._about_invoice(notice))
