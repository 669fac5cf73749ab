"""The fake of Stripe's API: what time brings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import stripe
from tests.support.stripe_asking import (
    NOON,
    event,
    metered_price,
    package_client,
)
from tests.support.stripe_fake import StripeFake


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


async def test_months_end_where_the_calendar_says(
    fake: StripeFake, client: stripe.StripeClient
) -> None:
    """https://docs.stripe.com/billing/subscriptions/billing-cycle: the 31st, or a month's last."""
    price = await metered_price(client)
    customer = (await client.v1.customers.create_async({})).id
    await client.v1.subscriptions.create_async({"customer": customer, "items": [{"price": price}]})
    ends = []
    for _ in range(3):
        (found,) = (await client.v1.subscriptions.list_async({"customer": customer})).data
        ends.append(datetime.fromtimestamp(found["items"].data[0].current_period_end, UTC))
        fake.clock.freeze(ends[-1])
    assert [(end.month, end.day) for end in ends] == [(2, 29), (3, 31), (4, 30)]


async def test_a_failed_renewal_is_tried_again_and_lifts_past_due(
    fake: StripeFake, client: stripe.StripeClient
) -> None:
    """https://docs.stripe.com/billing/revenue-recovery: attempts after 3, 5 and 7 days."""
    price = await metered_price(client)
    customer = await client.v1.customers.create_async({})
    card = await client.v1.payment_methods.attach_async(
        "pm_card_chargeCustomerFail", {"customer": customer.id}
    )
    await client.v1.customers.update_async(
        customer.id, {"invoice_settings": {"default_payment_method": card.id}}
    )
    subscription = await client.v1.subscriptions.create_async(
        {
            "customer": customer.id,
            "items": [{"price": price}],
            "billing_cycle_anchor_config": {"day_of_month": 1, "hour": 0, "minute": 0, "second": 0},
        }
    )
    await client.v1.billing.meter_events.create_async(event(customer.id, "900"))
    fake.clock.freeze(datetime(2028, 2, 1, 1, 5, tzinfo=UTC))
    attempts = []
    for days in (3, 5, 7):
        found = await client.v1.subscriptions.retrieve_async(subscription.id)
        invoice = await client.v1.invoices.retrieve_async(str(found.latest_invoice))
        attempts.append((found.status, invoice.status, invoice.attempt_count))
        fake.clock.advance(days * 86_400)
    assert attempts == [("past_due", "open", 1), ("past_due", "open", 2), ("past_due", "open", 3)]
    good = await client.v1.payment_methods.attach_async("pm_card_visa", {"customer": customer.id})
    await client.v1.customers.update_async(
        customer.id, {"invoice_settings": {"default_payment_method": good.id}}
    )
    await client.v1.invoices.pay_async(invoice.id)
    found = await client.v1.subscriptions.retrieve_async(subscription.id)
    assert found.status == "active"


async def test_nothing_falls_due_for_a_customer_that_is_gone(
    fake: StripeFake, client: stripe.StripeClient
) -> None:
    """https://docs.stripe.com/api/customers/delete: its subscriptions end, its drafts stay."""
    price = await metered_price(client)
    customer = (await client.v1.customers.create_async({})).id
    subscription = await client.v1.subscriptions.create_async(
        {"customer": customer, "items": [{"price": price}]}
    )
    draft = await client.v1.invoices.create_async({"customer": customer, "auto_advance": True})
    await client.v1.customers.delete_async(customer)
    fake.clock.advance(90 * 86_400)
    ended = await client.v1.subscriptions.retrieve_async(subscription.id)
    assert ended.status == "canceled"
    assert (await client.v1.invoices.retrieve_async(draft.id)).status == "draft"
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.invoices.finalize_invoice_async(draft.id)


async def test_refunds_can_fail_days_later(fake: StripeFake, client: stripe.StripeClient) -> None:
    """https://docs.stripe.com/refunds#failed-refunds: the money is the account's again."""
    customer = await client.v1.customers.create_async({})
    card = await client.v1.payment_methods.attach_async(
        "pm_card_refundFail", {"customer": customer.id}
    )
    intent = await client.v1.payment_intents.create_async(
        {
            "amount": 700,
            "currency": "usd",
            "customer": customer.id,
            "payment_method": card.id,
            "confirm": True,
        }
    )
    refund = await client.v1.refunds.create_async({"payment_intent": intent.id})
    assert refund.status == "succeeded"
    fake.settle_refunds()
    assert (await client.v1.refunds.retrieve_async(refund.id)).status == "failed"
    charge = await client.v1.charges.retrieve_async(str(intent.latest_charge))
    assert (charge.amount_refunded, charge.refunded) == (0, False)
