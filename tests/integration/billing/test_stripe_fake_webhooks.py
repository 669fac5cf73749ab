"""The fake of Stripe's API: webhooks, as badly as they can come."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import pytest
import stripe
from tests.support.stripe_asking import (
    NOON,
    package_client,
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


async def test_webhooks_come_signed_in_any_order_and_twice(
    fake: StripeFake, client: stripe.StripeClient, sink: WebhookSink
) -> None:
    """https://docs.stripe.com/webhooks: the package verifies each, with either secret."""
    fake.clock.freeze(datetime.now(UTC))  # the package checks the age by the real time
    fake.webhooks.register(sink.url, "whsec_new", "whsec_old")
    made = [(await client.v1.customers.create_async({})).id for _ in range(5)]
    order = random.Random(4).sample(range(5), 5)
    statuses = await fake.webhooks.send(order=lambda due: [due[n] for n in order], copies=2)
    assert statuses == [200] * 10
    seen = []
    for body, headers in zip(sink.bodies, sink.headers, strict=True):
        for secret in ("whsec_new", "whsec_old"):
            event = stripe.Webhook.construct_event(body, headers["stripe-signature"], secret)
        with pytest.raises(stripe.SignatureVerificationError):
            stripe.Webhook.construct_event(body, headers["stripe-signature"], "whsec_other")
        seen.append(event.data.object["id"])
    assert seen == [made[n] for n in order for _ in range(2)]
    assert not fake.webhooks.pending


async def test_a_replayed_signature_is_old(
    fake: StripeFake, client: stripe.StripeClient, sink: WebhookSink
) -> None:
    """`late_s` is what the tolerance of a receiver is for."""
    fake.clock.freeze(datetime.now(UTC))
    fake.webhooks.register(sink.url, "whsec")
    await client.v1.customers.create_async({})
    await fake.webhooks.send(late_s=301)
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(sink.bodies[0], sink.headers[0]["stripe-signature"], "whsec")


async def test_what_was_not_delivered_can_be_listed(
    fake: StripeFake, client: stripe.StripeClient, sink: WebhookSink
) -> None:
    """https://docs.stripe.com/webhooks/process-undelivered-events, for 30 days."""
    fake.webhooks.register(sink.url, "whsec", enabled=("customer.created",))
    customers = [(await client.v1.customers.create_async({})).id for _ in range(3)]
    sink.status = 500
    await fake.webhooks.send()
    sink.status = 200
    await fake.webhooks.send(fake.webhooks.pending[:1])
    lost = await client.v1.events.list_async({"delivery_success": False})
    assert [one.data.object["id"] for one in lost.data] == customers[:0:-1]
    assert [one.pending_webhooks for one in lost.data] == [1, 1]
    fake.clock.advance(30 * 86_400 + 1)
    assert not (await client.v1.events.list_async({"delivery_success": False})).data
