"""The fake of Stripe's API: meter events, to the second and to the last error."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest
import stripe
from tests.support.stripe_asking import (
    NOON,
    event,
    new_meter,
    package_client,
    stream_client,
    used,
)
from tests.support.stripe_fake import StripeFake
from tests.support.webhook_sink import WebhookSink, webhook_sink


@pytest.fixture
def fake(stripe_fake: StripeFake) -> StripeFake:
    """At a moment that a test moves."""
    stripe_fake.clock.freeze(NOON)
    return stripe_fake


@pytest.fixture
async def client(fake: StripeFake) -> AsyncIterator[stripe.StripeClient]:
    """The real package."""
    async with package_client(fake) as made:
        yield made


@pytest.fixture
def sink() -> Iterator[WebhookSink]:
    """Where webhooks go."""
    with webhook_sink() as made:
        yield made


@pytest.mark.parametrize(
    ("off", "taken"),
    [
        (timedelta(days=-35), True),
        (timedelta(days=-35, seconds=-1), False),
        (timedelta(minutes=5), True),
        (timedelta(minutes=5, seconds=1), False),
    ],
)
async def test_the_window_of_events_to_the_second(
    client: stripe.StripeClient, off: timedelta, *, taken: bool
) -> None:
    """https://docs.stripe.com/api/billing/meter-event/create, across a month's end."""
    meter = await new_meter(client)
    customer = (await client.v1.customers.create_async({})).id
    sent = event(customer, timestamp=int((NOON + off).timestamp()))
    if taken:
        await client.v1.billing.meter_events.create_async(sent)
    else:
        with pytest.raises(stripe.InvalidRequestError) as refusal:
            await client.v1.billing.meter_events.create_async(sent)
        assert "timestamp" in str(refusal.value)
    assert await used(client, meter.id, customer) == (5 if taken else 0)


async def test_an_identifier_is_forgotten_after_a_day_and_then_counts_twice(
    fake: StripeFake, client: stripe.StripeClient
) -> None:
    """Unique for "at least 24 hours": who tries later must ask the summaries first (I2)."""
    meter = await new_meter(client)
    customer = (await client.v1.customers.create_async({})).id
    sent = event(customer, timestamp=int(NOON.timestamp()))
    await client.v1.billing.meter_events.create_async(sent)
    fake.clock.advance(86_399)
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await client.v1.billing.meter_events.create_async(sent)
    assert refusal.value.code == "duplicate_meter_event"
    assert (refusal.value.headers or {})["stripe-should-retry"] == "false"
    fake.clock.advance(1)
    await client.v1.billing.meter_events.create_async(sent)
    assert await used(client, meter.id, customer) == 10


async def test_summaries_lag(fake: StripeFake, client: stripe.StripeClient) -> None:
    """They "might not immediately reflect recently received meter events" (recording-usage-api)."""
    fake.account.metering_lag_s = 30
    meter = await new_meter(client)
    customer = (await client.v1.customers.create_async({})).id
    await client.v1.billing.meter_events.create_async(event(customer))
    assert await used(client, meter.id, customer) == 0
    fake.clock.advance(30)
    assert await used(client, meter.id, customer) == 5


async def test_what_is_wrong_with_events_is_told_later_by_thin_events(
    fake: StripeFake, client: stripe.StripeClient, sink: WebhookSink
) -> None:
    """A 2xx is no proof: https://docs.stripe.com/api/v2/core/events/event-types has the codes."""
    fake.webhooks.register(sink.url, "whsec_thin", thin=True)
    fake.webhooks.register(sink.url, "whsec_snapshot")
    meter = await new_meter(client)
    customer = (await client.v1.customers.create_async({})).id
    old = (NOON - timedelta(days=36)).isoformat()
    bad = [
        ("meter_event_customer_not_found", event("cus_none")),
        ("meter_event_no_customer_defined", event(customer, payload={"value": "1"})),
        ("meter_event_invalid_value", event(customer, "1.5")),
        ("meter_event_value_too_many_digits", event(customer, "1" * 16)),
        ("timestamp_too_far_in_past", event(customer, timestamp=old)),
        ("no_meter", event(customer, event_name="none")),
    ]
    stream = (await stream_client(fake, client)).v2.billing.meter_event_stream
    await stream.create_async({"events": [event(customer), *(wrong for _, wrong in bad)]})
    assert await used(client, meter.id, customer) == 5
    await fake.webhooks.send([one for one in fake.webhooks.pending if one.endpoint.thin])
    codes = {}
    for body, headers in zip(sink.bodies, sink.headers, strict=True):
        signature = headers["stripe-signature"]
        notice = client.parse_event_notification(body, signature, "whsec_thin", 10**9)
        assert b"error_types" not in body
        # `notice.fetch_event_async()` of stripe 16.1.0 sends a parameter of its own along, `usage`.
        report = await client.v2.core.events.retrieve_async(notice.id)
        for kind in report["data"]["reason"]["error_types"]:
            for sample in kind["sample_errors"]:
                codes[sample["request"]["identifier"]] = kind["code"]
    assert codes == {wrong["identifier"]: code for code, wrong in bad}


async def test_a_stream_forgets_what_it_has_seen_without_a_word_at_once(
    fake: StripeFake, client: stripe.StripeClient
) -> None:
    """A duplicate in a batch is no refusal: it does not count again, and a report says so."""
    meter = await new_meter(client)
    customer = (await client.v1.customers.create_async({})).id
    stream = (await stream_client(fake, client)).v2.billing.meter_event_stream
    sent = event(customer)
    await stream.create_async({"events": [sent, sent]})
    await stream.create_async({"events": [sent]})
    assert await used(client, meter.id, customer) == 5
    found = await client.v2.core.events.list_async()
    assert {one.type for one in found.data} == {"v1.billing.meter.error_report_triggered"}
    fake.clock.advance(15 * 60)
    with pytest.raises(stripe.TemporarySessionExpiredError):
        await stream.create_async({"events": [sent]})


async def test_an_event_can_be_taken_back_for_a_day(
    fake: StripeFake, client: stripe.StripeClient
) -> None:
    """https://docs.stripe.com/api/billing/meter-event-adjustment/create."""
    meter = await new_meter(client)
    customer = (await client.v1.customers.create_async({})).id
    events = [event(customer), event(customer)]
    for sent in events:
        await client.v1.billing.meter_events.create_async(sent)
    adjustments = client.v1.billing.meter_event_adjustments

    def cancelling(sent: Any) -> Any:
        cancel = {"identifier": sent["identifier"]}
        return {"event_name": "usage", "type": "cancel", "cancel": cancel}

    await adjustments.create_async(cancelling(events[0]))
    assert await used(client, meter.id, customer) == 5
    fake.clock.advance(86_401)
    with pytest.raises(stripe.InvalidRequestError):
        await adjustments.create_async(cancelling(events[1]))
    assert await used(client, meter.id, customer) == 5
