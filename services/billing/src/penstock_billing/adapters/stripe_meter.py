"""Usage as Stripe's meter hears of it: one by one (v1), or by the hundred (v2).

- docs.stripe.com/api/billing/meter-event/create: an identifier is unique for at least 24 hours;
  the time lies within the past 35 days and at most five minutes ahead.
- docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api: v1 takes 1,000 calls a
  second, one at a time for a customer and meter; v2's stream takes 10,000 a second of up to 100
  events each, with a session's token that lives for 15 minutes. Either way events are counted
  later: what is wrong with them is told by `v1.billing.meter.error_report_triggered`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from itertools import islice
from typing import Any, Final

import stripe

from penstock_billing.adapters.stripe_client import (
    StripeConnection,
    passes_by_itself,
    plain,
    translated,
)
from penstock_billing.domain.pushing import month_end, month_start
from penstock_billing.ports.mirror import MirrorBook
from penstock_billing.ports.pushing import Push, PushOutcome
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.telemetry import log

EVENT_NAME: Final = "penstock_usage"
"""Of the meter: it adds up cents."""
_AT_ONCE: Final = 8
_EVENTS_PER_CALL: Final = 100
_RENEW_S: Final = 60.0
"""So long before its end a session is not used any more."""
_DUPLICATE: Final = "duplicate_meter_event"


class StripeMeter:
    """A `UsageMeter`."""

    def __init__(
        self, connection: StripeConnection, book: MirrorBook, clock: Clock, *, stream_from: int
    ) -> None:
        """From `stream_from` pushes at once on, v2's stream takes them."""
        self._connection = connection
        self._client = connection.client
        self._book = book
        self._clock = clock
        self._stream_from = stream_from
        self._stream: tuple[stripe.StripeClient, datetime] | None = None

    async def report(self, pushes: Sequence[Push]) -> Sequence[PushOutcome | None]:
        """Tell the meter; for each push how it ended, None: nobody knows, ask again."""
        if len(pushes) >= self._stream_from:
            return await self._report_many(pushes)
        turns: dict[str, asyncio.Lock] = {push.customer: asyncio.Lock() for push in pushes}
        places = asyncio.Semaphore(_AT_ONCE)

        async def one(push: Push) -> PushOutcome | None:
            async with turns[push.customer], places:
                return await self._report_one(push)

        return await asyncio.gather(*(one(push) for push in pushes))

    async def summed_cents(self, customer: str, period: date) -> int:
        """What the meter has added up for a customer's month.

        docs.stripe.com/api/billing/meter-event-summary/list: without a grouping window it is one
        sum; both times are whole minutes.
        """
        catalogue = await self._book.catalogue()
        if catalogue is None:
            msg = "The meter is not known yet: Stripe is brought in step first."
            raise UnavailableError(msg, code="stripe_unavailable")
        with translated():
            found = await self._client.v1.billing.meters.event_summaries.list_async(
                catalogue.meter,
                {
                    "customer": customer,
                    "start_time": _seconds(month_start(period)),
                    "end_time": _seconds(month_end(period)),
                },
            )
        return sum(round(summary.aggregated_value) for summary in found.data)

    async def _report_one(self, push: Push) -> PushOutcome | None:
        try:
            await self._client.v1.billing.meter_events.create_async(
                {
                    "event_name": EVENT_NAME,
                    "identifier": push.identifier,
                    "timestamp": _seconds(push.used_at),
                    "payload": _payload(push),
                }
            )
        except stripe.StripeError as error:
            return _outcome(error, push)
        return PushOutcome.ACCEPTED

    async def _report_many(self, pushes: Sequence[Push]) -> list[PushOutcome | None]:
        outcomes: list[PushOutcome | None] = []
        for batch in _batches(pushes, _EVENTS_PER_CALL):
            outcomes += [await self._send(batch)] * len(batch)
        return outcomes

    async def _send(self, batch: Sequence[Push]) -> PushOutcome | None:
        """One call of the stream: it takes all of them or none."""
        events: Any = [
            {
                "event_name": EVENT_NAME,
                "identifier": push.identifier,
                "timestamp": push.used_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "payload": _payload(push),
            }
            for push in batch
        ]
        try:
            stream = await self._session()
            await stream.v2.billing.meter_event_stream.create_async({"events": events})
        except stripe.StripeError as error:
            self._stream = None  # whatever it was: the next one begins with a session of its own
            log().warning("stripe.stream_failed", kind=type(error).__name__, code=error.code)
            return None
        return PushOutcome.ACCEPTED

    async def _session(self) -> stripe.StripeClient:
        now = self._clock.now()
        if self._stream is None or self._stream[1] <= now:
            session = await self._client.v2.billing.meter_event_session.create_async()
            ends_at = datetime.fromisoformat(str(session.expires_at))
            client = self._connection.client_with(session.authentication_token)
            self._stream = client, ends_at - timedelta(seconds=_RENEW_S)
        return self._stream[0]


class StripeMeterErrors:
    """What Stripe's meter dropped after it had taken it."""

    def __init__(self, connection: StripeConnection) -> None:
        self._client = connection.client

    async def dropped(self, event_id: str) -> tuple[list[str], int]:
        """The identifiers that an error report names, and how many errors it counts.

        A thin event says only that there is a report; its data is fetched
        (docs.stripe.com/event-destinations#fetch-data). It names some identifiers as samples. A
        duplicate was counted once, as it should be.

        Raises:
            UnavailableError: Stripe does not answer.
            PermanentError: it has no such event, or refuses the key.
        """
        with translated():
            event = plain(await self._client.v2.core.events.retrieve_async(event_id))
        reason = (event.get("data") or {}).get("reason") or {}
        kinds = [k for k in reason.get("error_types") or () if k.get("code") != _DUPLICATE]
        named = [
            sample["request"]["identifier"] for k in kinds for sample in k.get("sample_errors", ())
        ]
        return named, sum(int(k.get("error_count", 0)) for k in kinds)


def _outcome(error: stripe.StripeError, push: Push) -> PushOutcome | None:
    """docs.stripe.com/error-handling: what a failed call says of the event.

    A duplicate is answered with 400: the first one has arrived. The code is the documented sign;
    the message is looked at, too, since it was the only one for long (langfuse issue 16292).
    """
    if passes_by_itself(error):
        return None
    if error.code == _DUPLICATE or "already exists" in (error.user_message or ""):
        return PushOutcome.DUPLICATE
    if not isinstance(error, stripe.InvalidRequestError):
        with translated():
            raise error
    log().error("stripe.push_refused", push=push.identifier, code=error.code)
    return PushOutcome.REFUSED


def _payload(push: Push) -> dict[str, str]:
    return {"stripe_customer_id": push.customer, "value": str(push.cents)}


def _seconds(at: datetime) -> int:
    return int(at.timestamp())


def _batches(pushes: Iterable[Push], size: int) -> Iterable[list[Push]]:
    rest = iter(pushes)
    while batch := list(islice(rest, size)):
        yield batch
