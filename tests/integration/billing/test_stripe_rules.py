"""Stripe's rules as this project needs them: asked of the fake, and of Stripe itself with a key."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import stripe
from tests.support.stripe_target import TARGETS, StripeTarget, stripe_target


@pytest.fixture(params=TARGETS)
async def target(request: pytest.FixtureRequest) -> AsyncIterator[StripeTarget]:
    """Each rule is shown on each target."""
    async with stripe_target(request.param) as made:
        yield made


async def test_metadata_is_merged_and_an_empty_value_unsets(target: StripeTarget) -> None:
    """https://docs.stripe.com/api/metadata."""
    customer = await target.customer(card=None)
    for given, kept in (
        ({"a": "1", "b": "2"}, {"a": "1", "b": "2"}),
        ({"b": "", "c": "3"}, {"a": "1", "c": "3"}),
    ):
        customer = await target.v1.customers.update_async(customer.id, {"metadata": given})
        assert customer.to_dict()["metadata"] == kept
    customer = await target.v1.customers.update_async(customer.id, {"metadata": ""})
    assert customer.to_dict()["metadata"] == {}


@pytest.mark.parametrize(
    ("given", "code", "param"),
    [
        ({"bogus": "1"}, "parameter_unknown", "bogus"),
        ({"address": {"bogus": "1"}}, "parameter_unknown", "address[bogus]"),
        ({"balance": "much"}, "parameter_invalid_integer", "balance"),
        ({"metadata": {"x" * 41: "1"}}, None, None),
        ({"metadata": {"x": "1" * 501}}, None, None),
    ],
)
async def test_parameters_that_are_wrong_are_refused(
    target: StripeTarget, given: dict[str, object], code: str | None, param: str | None
) -> None:
    """https://docs.stripe.com/error-codes: the error names the parameter."""
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await target.v1.customers.create_async(given)  # type: ignore[arg-type]
    assert refusal.value.http_status == 400
    if code is not None:
        assert (refusal.value.code, refusal.value.param) == (code, param)


async def test_a_required_parameter_that_is_missing_is_named(target: StripeTarget) -> None:
    """https://docs.stripe.com/error-codes#parameter-missing."""
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await target.v1.billing.meter_events.create_async({"event_name": "x"})  # type: ignore[typeddict-item]
    assert (refusal.value.code, refusal.value.param) == ("parameter_missing", "payload")


async def test_what_does_not_exist_is_missing(target: StripeTarget) -> None:
    """https://docs.stripe.com/error-codes#resource-missing: 404 by address, 400 by parameter."""
    with pytest.raises(stripe.InvalidRequestError) as by_address:
        await target.v1.customers.retrieve_async("cus_none")
    assert (by_address.value.http_status, by_address.value.code) == (404, "resource_missing")
    with pytest.raises(stripe.InvalidRequestError) as by_parameter:
        await target.v1.invoices.create_async({"customer": "cus_none"})
    assert (by_parameter.value.http_status, by_parameter.value.param) == (400, "customer")


async def test_a_deleted_customer_stays_as_a_stub(target: StripeTarget) -> None:
    """https://docs.stripe.com/api/customers/delete."""
    customer = await target.customer(card=None)
    await target.v1.customers.delete_async(customer.id)
    assert (await target.v1.customers.retrieve_async(customer.id)).deleted
    with pytest.raises(stripe.InvalidRequestError):
        await target.v1.invoices.create_async({"customer": customer.id})


async def test_lists_are_newest_first_in_pages(target: StripeTarget) -> None:
    """https://docs.stripe.com/api/pagination; customers of a test clock only where it is named."""
    made = [(await target.customer(card=None)).id for _ in range(4)]
    first = await target.v1.customers.list_async({"test_clock": target.clock, "limit": 3})
    assert [one.id for one in first.data] == made[:0:-1]
    assert first.has_more
    rest = [one.id async for one in first.auto_paging_iter()]
    assert rest == made[::-1]
    recent = await target.v1.customers.list_async({"limit": 100})
    assert not {one.id for one in recent.data} & set(made)


async def test_a_key_replays_the_first_answer(target: StripeTarget) -> None:
    """https://docs.stripe.com/api/idempotent_requests: an effect once, other parameters refused."""
    key = str(uuid.uuid4())
    first = await target.v1.customers.create_async({"name": "once"}, {"idempotency_key": key})
    again = await target.v1.customers.create_async({"name": "once"}, {"idempotency_key": key})
    assert again.id == first.id
    assert again.last_response is not None
    assert again.last_response.headers["idempotent-replayed"] == "true"
    with pytest.raises(stripe.IdempotencyError):
        await target.v1.customers.create_async({"name": "other"}, {"idempotency_key": key})


async def test_a_key_keeps_a_decline_and_not_a_refused_parameter(target: StripeTarget) -> None:
    """What failed validation may be corrected under its key; what ran is replayed, errors too."""
    customer = await target.customer(card="pm_card_chargeCustomerFail")
    key, tried = str(uuid.uuid4()), {"customer": customer.id, "amount": 100}
    with pytest.raises(stripe.InvalidRequestError):
        await target.v1.payment_intents.create_async(tried, {"idempotency_key": key})  # type: ignore[arg-type]
    confirmed = {
        "customer": customer.id,
        "amount": 100,
        "currency": "usd",
        "confirm": True,
        "off_session": True,
        "payment_method": customer.invoice_settings.default_payment_method,  # type: ignore[union-attr]
    }
    declines = []
    for _ in range(2):
        with pytest.raises(stripe.CardError) as declined:
            await target.v1.payment_intents.create_async(confirmed, {"idempotency_key": key})  # type: ignore[arg-type]
        declines.append(declined.value)
    assert declines[0].code == declines[1].code == "card_declined"
    intents = {one.json_body["error"]["payment_intent"]["id"] for one in declines}  # type: ignore[index]
    assert len(intents) == 1


async def test_a_second_event_of_one_identifier_is_refused(target: StripeTarget) -> None:
    """400, and the message that langfuse/langfuse#16292 quotes: it means "delivered"."""
    meter, _ = await target.metered_price()
    customer = await target.customer(card=None)
    await target.use(meter, customer.id, 5, await target.now(), "a")
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await target.use(meter, customer.id, 5, await target.now(), "a")
    assert refusal.value.http_status == 400
    assert "already exists with identifier" in str(refusal.value)
    start = (await target.now()).replace(second=0, microsecond=0) - timedelta(minutes=5)

    async def counted_once() -> bool:
        found = await target.v1.billing.meters.event_summaries.list_async(
            meter.id,
            {
                "customer": customer.id,
                "start_time": int(start.timestamp()),
                "end_time": int(start.timestamp()) + 600,
            },
        )
        return sum(one.aggregated_value for one in found.data) == 5

    await target.eventually(counted_once)


@pytest.mark.parametrize("off", [timedelta(days=-36), timedelta(minutes=7)])
async def test_the_time_of_an_event_is_bounded(target: StripeTarget, off: timedelta) -> None:
    """https://docs.stripe.com/api/billing/meter-event/create: 35 days back, 5 minutes ahead."""
    meter, _ = await target.metered_price()
    customer = await target.customer(card=None)
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await target.use(meter, customer.id, 5, await target.now() + off, "a")
    assert refusal.value.http_status == 400


async def test_a_stream_takes_a_batch(target: StripeTarget) -> None:
    """https://docs.stripe.com/api/v2/billing/meter-event-stream: a session, at most 100 events."""
    meter, _ = await target.metered_price()
    customer = await target.customer(card=None)
    now = await target.now()
    session = await target.client.v2.billing.meter_event_session.create_async()
    stream = target.with_key(session.authentication_token).v2.billing.meter_event_stream
    events = [
        {
            "event_name": meter.event_name,
            "identifier": f"{target.run}:{n}",
            "timestamp": now.isoformat(),
            "payload": {"stripe_customer_id": customer.id, "value": "2"},
        }
        for n in range(101)
    ]
    with pytest.raises(stripe.StripeError):
        await stream.create_async({"events": events})  # type: ignore[typeddict-item]
    await stream.create_async({"events": events[:100]})  # type: ignore[typeddict-item]
    start = int(now.timestamp()) // 60 * 60 - 600

    async def all_counted() -> bool:
        found = await target.v1.billing.meters.event_summaries.list_async(
            meter.id,
            {"customer": customer.id, "start_time": start, "end_time": start + 1_200},
        )
        return sum(one.aggregated_value for one in found.data) == 200

    await target.eventually(all_counted)


async def test_a_metered_price_needs_a_meter(target: StripeTarget) -> None:
    """https://docs.stripe.com/changelog/basil/2025-03-31/deprecate-legacy-usage-based-billing."""
    product = await target.v1.products.create_async({"name": target.run})
    with pytest.raises(stripe.InvalidRequestError):
        await target.v1.prices.create_async(
            {
                "product": product.id,
                "currency": "usd",
                "unit_amount": 1,
                "recurring": {"interval": "month", "usage_type": "metered"},
            }
        )


async def test_a_lookup_key_belongs_to_one_price(target: StripeTarget) -> None:
    """https://docs.stripe.com/products-prices/manage-prices#lookup-keys."""
    product = await target.v1.products.create_async({"name": target.run})
    price = {"product": product.id, "currency": "usd", "unit_amount": 1, "lookup_key": target.run}
    first = await target.v1.prices.create_async(price)  # type: ignore[arg-type]
    with pytest.raises(stripe.InvalidRequestError):
        await target.v1.prices.create_async(price)  # type: ignore[arg-type]
    second = await target.v1.prices.create_async({**price, "transfer_lookup_key": True})  # type: ignore[typeddict-item]
    found = await target.v1.prices.list_async({"lookup_keys": [target.run]})
    assert [one.id for one in found.data] == [second.id]
    assert (await target.v1.prices.retrieve_async(first.id)).lookup_key is None


async def test_a_month_of_usage_becomes_an_invoice(target: StripeTarget) -> None:
    """The renewal's draft has the usage and what was pending, and is paid about an hour later.

    https://docs.stripe.com/billing/subscriptions/usage-based/how-it-works and
    https://docs.stripe.com/billing/invoices/subscription.
    """
    meter, price = await target.metered_price()
    customer = await target.customer()
    subscription = await target.v1.subscriptions.create_async(
        {"customer": customer.id, "items": [{"price": price.id}]}
    )
    assert subscription.status == "active"
    item = subscription["items"].data[0]
    await target.use(meter, customer.id, 700, await target.now(), "a")
    await target.v1.invoice_items.create_async(
        {"customer": customer.id, "amount": 250, "currency": "usd", "description": "fee"}
    )

    async def previewed() -> bool:
        preview = await target.v1.invoices.create_preview_async({"subscription": subscription.id})
        return any(line.amount == 700 for line in preview.lines.data)

    await target.eventually(previewed)
    over = datetime.fromtimestamp(item.current_period_end, UTC)
    await target.advance(over + timedelta(minutes=5))
    (draft,) = await _renewals(target, customer.id)
    assert (draft.status, draft.total) == ("draft", 950)
    await target.advance(over + timedelta(hours=3))
    (invoice,) = await _renewals(target, customer.id)
    assert (invoice.status, invoice.amount_paid) == ("paid", 950)


async def _renewals(target: StripeTarget, customer: str) -> list[stripe.Invoice]:
    found = await target.v1.invoices.list_async({"customer": customer})
    return [one for one in found.data if one.billing_reason == "subscription_cycle"]


async def _invoice(target: StripeTarget, customer: str, cents: int) -> stripe.Invoice:
    draft = await target.v1.invoices.create_async({"customer": customer})
    await target.v1.invoice_items.create_async(
        {"customer": customer, "invoice": draft.id, "amount": cents, "currency": "usd"}
    )
    return draft


async def test_an_invoice_is_editable_until_it_is_finalized(target: StripeTarget) -> None:
    """https://docs.stripe.com/invoicing/integration/workflow-transitions."""
    customer = await target.customer()
    draft = await _invoice(target, customer.id, 900)
    assert (draft.status, draft.auto_advance) == ("draft", False)
    opened = await target.v1.invoices.finalize_invoice_async(draft.id)
    assert (opened.status, opened.amount_due) == ("open", 900)
    assert opened.number
    with pytest.raises(stripe.InvalidRequestError):
        await target.v1.invoice_items.create_async(
            {"customer": customer.id, "invoice": draft.id, "amount": 1, "currency": "usd"}
        )
    with pytest.raises(stripe.InvalidRequestError):
        await target.v1.invoices.delete_async(draft.id)
    with pytest.raises(stripe.InvalidRequestError):
        await target.v1.invoices.finalize_invoice_async(draft.id)


async def test_how_an_open_invoice_ends(target: StripeTarget) -> None:
    """Paid, paid elsewhere, void or uncollectible; one that is paid cannot be paid again."""
    customer = await target.customer()
    opened = []
    for _ in range(4):
        draft = await _invoice(target, customer.id, 900)
        opened.append((await target.v1.invoices.finalize_invoice_async(draft.id)).id)
    invoices = target.v1.invoices
    assert (await invoices.pay_async(opened[0])).amount_paid == 900
    with pytest.raises(stripe.InvalidRequestError):
        await invoices.pay_async(opened[0])
    assert (await invoices.pay_async(opened[1], {"paid_out_of_band": True})).status == "paid"
    assert (await invoices.void_invoice_async(opened[2])).status == "void"
    with pytest.raises(stripe.InvalidRequestError):
        await invoices.pay_async(opened[2])
    assert (await invoices.mark_uncollectible_async(opened[3])).status == "uncollectible"
    assert (await invoices.pay_async(opened[3])).status == "paid"


async def test_a_declined_invoice_stays_open(target: StripeTarget) -> None:
    """https://docs.stripe.com/testing#declined-payments: 402, and another card pays it."""
    customer = await target.customer(card="pm_card_chargeCustomerFail")
    draft = await _invoice(target, customer.id, 900)
    await target.v1.invoices.finalize_invoice_async(draft.id)
    with pytest.raises(stripe.CardError) as declined:
        await target.v1.invoices.pay_async(draft.id)
    assert (declined.value.http_status, declined.value.code) == (402, "card_declined")
    invoice = await target.v1.invoices.retrieve_async(draft.id)
    assert (invoice.status, invoice.attempted, invoice.attempt_count) == ("open", True, 1)
    card = await target.v1.payment_methods.attach_async("pm_card_visa", {"customer": customer.id})
    paid = await target.v1.invoices.pay_async(draft.id, {"payment_method": card.id})
    assert paid.status == "paid"
    found = await target.v1.events.list_async({"types": ["invoice.paid", "invoice.payment_failed"]})
    about = [one.type for one in found.data if one.data.object["id"] == draft.id]
    assert about == ["invoice.paid", "invoice.payment_failed"]


async def test_less_than_the_least_charge_waits_for_the_next_invoice(target: StripeTarget) -> None:
    """`amount_due` of https://docs.stripe.com/api/invoices/object: the balance takes it over."""
    customer = await target.customer()
    small = await _invoice(target, customer.id, 30)
    paid = await target.v1.invoices.finalize_invoice_async(small.id)
    assert (paid.status, paid.amount_due) == ("paid", 0)
    assert (await target.v1.customers.retrieve_async(customer.id)).balance == 30
    draft = await _invoice(target, customer.id, 900)
    opened = await target.v1.invoices.finalize_invoice_async(draft.id)
    assert (opened.total, opened.amount_due) == (900, 930)


async def test_refunds_are_bounded_by_the_charge(target: StripeTarget) -> None:
    """https://docs.stripe.com/refunds: in parts, up to what was charged."""
    customer = await target.customer()
    draft = await _invoice(target, customer.id, 900)
    await target.v1.invoices.finalize_invoice_async(draft.id)
    await target.v1.invoices.pay_async(draft.id)
    payments = await target.v1.invoice_payments.list_async({"invoice": draft.id})
    intent = str(payments.data[0].payment.payment_intent)
    part = await target.v1.refunds.create_async({"payment_intent": intent, "amount": 300})
    assert (part.status, part.amount) == ("succeeded", 300)
    with pytest.raises(stripe.InvalidRequestError):
        await target.v1.refunds.create_async({"payment_intent": intent, "amount": 601})
    assert (await target.v1.refunds.create_async({"payment_intent": intent})).amount == 600
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await target.v1.refunds.create_async({"payment_intent": intent})
    assert refusal.value.code == "charge_already_refunded"
