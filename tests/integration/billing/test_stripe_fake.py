"""The fake of Stripe's API: what a test cannot make Stripe do, and what it must not let pass."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import stripe
from tests.support import stripe_fake as fakes
from tests.support.stripe_fake import Fault, Kind, StripeFake
from tests.support.webhook_sink import WebhookSink, webhook_sink

NOON = datetime(2028, 1, 31, 12, tzinfo=UTC)
NAMES = itertools.count()


@pytest.fixture
def fake(stripe_fake: StripeFake) -> StripeFake:
    """At a moment that a test moves: noon of the last day of January of a leap year."""
    stripe_fake.clock.freeze(NOON)
    return stripe_fake


@pytest.fixture
async def client(fake: StripeFake) -> AsyncIterator[stripe.StripeClient]:
    """The real package, which tries nothing again by itself."""
    http = stripe.HTTPXClient(timeout=0.5)
    yield stripe.StripeClient(
        fakes.API_KEY,
        base_addresses=fake.addresses,
        max_network_retries=0,
        http_client=http,
    )
    await http.close_async()  # type: ignore[no-untyped-call]


@pytest.fixture
def sink() -> Iterator[WebhookSink]:
    """Where webhooks go."""
    with webhook_sink() as made:
        yield made


async def _meter(client: stripe.StripeClient, name: str = "usage") -> stripe.billing.Meter:
    return await client.v1.billing.meters.create_async(
        {"display_name": name, "event_name": name, "default_aggregation": {"formula": "sum"}}
    )


def _event(customer: str, value: str = "5", **members: Any) -> Any:
    payload = {"stripe_customer_id": customer, "value": value}
    return {"event_name": "usage", "payload": payload, "identifier": str(next(NAMES)), **members}


async def _used(client: stripe.StripeClient, meter: str, customer: str) -> float:
    """All that a meter has of a customer, in the months around the tests' time."""
    day = int(NOON.timestamp()) // 86_400 * 86_400
    found = await client.v1.billing.meters.event_summaries.list_async(
        meter,
        {"customer": customer, "start_time": day - 40 * 86_400, "end_time": day + 90 * 86_400},
    )
    return sum(one.aggregated_value for one in found.data)


# --- faults -------------------------------------------------------------------------------------

_SEEN = {
    Kind.RATE_LIMIT: stripe.RateLimitError,
    Kind.ERROR: stripe.APIError,
    Kind.TIMEOUT: stripe.APIConnectionError,
    Kind.RESET: stripe.APIConnectionError,
}


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("effect", [False, True])
async def test_a_fault_shows_and_its_effect_happens_or_not(
    fake: StripeFake, client: stripe.StripeClient, kind: Kind, *, effect: bool
) -> None:
    """Before or after the effect, the client sees the same; the second try under the key goes well.

    Except a 500 after the effect: its key replays it (https://docs.stripe.com/api/idempotent_requests,
    "including 500 errors"), and only another look shows that the customer is there.
    """
    fake.faults.plan(Fault(kind, "/v1/customers", effect=effect, skip=1))
    await client.v1.customers.create_async({"name": "before"})
    with pytest.raises(_SEEN[kind]):
        await client.v1.customers.create_async({"name": "x"}, {"idempotency_key": "k"})
    happened = effect and kind is not Kind.RATE_LIMIT
    assert len((await client.v1.customers.list_async()).data) == 1 + happened
    if happened and kind is Kind.ERROR:
        with pytest.raises(stripe.APIError):
            await client.v1.customers.create_async({"name": "x"}, {"idempotency_key": "k"})
    else:
        await client.v1.customers.create_async({"name": "x"}, {"idempotency_key": "k"})
    assert len((await client.v1.customers.list_async()).data) == 2
    assert len(fake.faults.struck) == 1


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_under_random_faults_a_key_makes_one_object(
    fake: StripeFake, client: stripe.StripeClient, seed: int
) -> None:
    """Whatever is struck how often, the same key never has two effects (I2)."""
    fake.faults.at_random(0.5, seed)
    http = client._requestor._client
    assert http is not None
    http._timeout = 0.05  # type: ignore[attr-defined]
    for name in map(str, range(12)):
        for _ in range(8):
            try:
                await client.v1.customers.create_async({"name": name}, {"idempotency_key": name})
            except stripe.StripeError:
                continue
            break
    fake.faults.clear()
    found = await client.v1.customers.list_async({"limit": 100})
    names = [one.name for one in found.data]
    assert len(names) == len(set(names))
    assert len(fake.faults.struck) > 6


async def test_v2_does_not_replay_a_failure(fake: StripeFake, client: stripe.StripeClient) -> None:
    """https://docs.stripe.com/api-v2-overview#idempotency: what succeeded is answered as such."""
    fake.faults.plan(Fault(Kind.ERROR, "/v2/", effect=True))
    sessions = client.v2.billing.meter_event_session
    with pytest.raises(stripe.APIError):
        await sessions.create_async({}, {"idempotency_key": "k"})
    session = await sessions.create_async({}, {"idempotency_key": "k"})
    again = await sessions.create_async({}, {"idempotency_key": "k"})
    assert session.authentication_token == again.authentication_token


async def test_a_key_in_use_is_refused(fake: StripeFake, client: stripe.StripeClient) -> None:
    """https://docs.stripe.com/error-codes#idempotency-key-in-use: 409 while the first runs."""
    await _meter(client)
    customer = (await client.v1.customers.create_async({})).id
    fake.front.service_s = 0.2
    event = _event(customer)
    first = asyncio.create_task(
        client.v1.billing.meter_events.create_async(event, {"idempotency_key": "k"})
    )
    await asyncio.sleep(0.05)
    with pytest.raises(stripe.StripeError) as refusal:
        await client.v1.billing.meter_events.create_async(event, {"idempotency_key": "k"})
    assert (refusal.value.http_status, (await first).identifier) == (409, event["identifier"])


async def test_a_key_is_forgotten_after_a_day(
    fake: StripeFake, client: stripe.StripeClient
) -> None:
    """Keys are removed after "at least 24 hours": then one acts again (idempotent_requests)."""
    made = [(await client.v1.customers.create_async({"name": "x"}, {"idempotency_key": "k"})).id]
    for wait, count in ((86_399, 1), (1, 2)):
        fake.clock.advance(wait)
        again = await client.v1.customers.create_async({"name": "x"}, {"idempotency_key": "k"})
        made.append(again.id)
        assert len(set(made)) == count


async def test_more_requests_than_the_rate_are_refused(
    fake: StripeFake, client: stripe.StripeClient
) -> None:
    """https://docs.stripe.com/rate-limits: 429, the reason in a header, and later it goes on."""
    fake.limits.monotonic = lambda: 0.0
    fake.limits.per_second = 3
    for _ in range(3):
        await client.v1.customers.create_async({})
    with pytest.raises(stripe.RateLimitError) as refusal:
        await client.v1.customers.create_async({})
    assert (refusal.value.headers or {})["stripe-rate-limited-reason"] == "global-rate"
    fake.limits.monotonic = lambda: 1.0
    await client.v1.customers.create_async({})


async def test_a_meter_takes_one_call_at_a_time_of_a_customer(
    fake: StripeFake, client: stripe.StripeClient
) -> None:
    """As recording-usage-api has it, "one concurrent call per customer per meter"; others may."""
    fake.front.service_s = 0.1
    await _meter(client)
    customers = [(await client.v1.customers.create_async({})).id for _ in range(2)]
    calls = [
        client.v1.billing.meter_events.create_async(_event(customer))
        for customer in (*customers, customers[0])
    ]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    refused = [one for one in outcomes if isinstance(one, stripe.RateLimitError)]
    assert len(refused) == 1
    assert len(outcomes) - len(refused) == 2


# --- strictness ---------------------------------------------------------------------------------


def test_no_endpoint_takes_a_parameter_that_stripe_does_not_have(fake: StripeFake) -> None:
    """Every rule of the fake, asked with a name that nobody knows."""
    auth = {"authorization": f"Bearer {fakes.API_KEY}", "stripe-version": stripe.api_version}
    with httpx.Client(base_url=fake.url, headers=auth) as http:
        for rule in fake.front.reader.rules:
            path = rule.path.replace("{id}", "x")
            if rule.method == "POST" and "/v2/" in path:
                answer = http.post(path, json={"bogus": "1"})
            elif rule.method == "POST":
                answer = http.post(path, data={"bogus": "1"})
            else:
                answer = http.request(rule.method, path, params={"bogus": "1"})
            error = answer.json()["error"]
            assert answer.status_code == 400, rule
            assert error["code"] == "parameter_unknown", rule


async def test_what_the_fake_does_not_model_it_refuses(client: stripe.StripeClient) -> None:
    """501, never a parameter that is taken and does nothing."""
    with pytest.raises(stripe.APIError) as refusal:
        await client.v1.customers.create_async({"tax_exempt": "exempt"})
    assert refusal.value.http_status == 501
    with pytest.raises(stripe.InvalidRequestError):
        await client.raw_request_async("get", "/v1/payouts")


async def test_keys_and_versions_are_checked(fake: StripeFake) -> None:
    """401 for a wrong key; 400 for a version whose shapes the fake does not have."""
    http = stripe.HTTPXClient(timeout=5)
    wrong = stripe.StripeClient("sk_test_wrong", base_addresses=fake.addresses, http_client=http)
    with pytest.raises(stripe.AuthenticationError):
        await wrong.v1.customers.list_async()
    old = stripe.StripeClient(
        fakes.API_KEY,
        base_addresses=fake.addresses,
        stripe_version="2024-06-20",
        http_client=http,
    )
    with pytest.raises(stripe.InvalidRequestError):
        await old.v1.customers.list_async()
    await http.close_async()  # type: ignore[no-untyped-call]


# --- meters -------------------------------------------------------------------------------------


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
    meter = await _meter(client)
    customer = (await client.v1.customers.create_async({})).id
    event = _event(customer, timestamp=int((NOON + off).timestamp()))
    if taken:
        await client.v1.billing.meter_events.create_async(event)
    else:
        with pytest.raises(stripe.InvalidRequestError) as refusal:
            await client.v1.billing.meter_events.create_async(event)
        assert "timestamp" in str(refusal.value)
    assert await _used(client, meter.id, customer) == (5 if taken else 0)


async def test_an_identifier_is_forgotten_after_a_day_and_then_counts_twice(
    fake: StripeFake, client: stripe.StripeClient
) -> None:
    """Unique for "at least 24 hours": who tries later must ask the summaries first (I2)."""
    meter = await _meter(client)
    customer = (await client.v1.customers.create_async({})).id
    event = _event(customer, timestamp=int(NOON.timestamp()))
    await client.v1.billing.meter_events.create_async(event)
    fake.clock.advance(86_399)
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await client.v1.billing.meter_events.create_async(event)
    assert refusal.value.code == "duplicate_meter_event"
    assert (refusal.value.headers or {})["stripe-should-retry"] == "false"
    fake.clock.advance(1)
    await client.v1.billing.meter_events.create_async(event)
    assert await _used(client, meter.id, customer) == 10


async def test_summaries_lag(fake: StripeFake, client: stripe.StripeClient) -> None:
    """They "might not immediately reflect recently received meter events" (recording-usage-api)."""
    fake.account.metering_lag_s = 30
    meter = await _meter(client)
    customer = (await client.v1.customers.create_async({})).id
    await client.v1.billing.meter_events.create_async(_event(customer))
    assert await _used(client, meter.id, customer) == 0
    fake.clock.advance(30)
    assert await _used(client, meter.id, customer) == 5


async def test_what_is_wrong_with_events_is_told_later_by_thin_events(
    fake: StripeFake, client: stripe.StripeClient, sink: WebhookSink
) -> None:
    """A 2xx is no proof: https://docs.stripe.com/api/v2/core/events/event-types has the codes."""
    fake.webhooks.register(sink.url, "whsec_thin", thin=True)
    fake.webhooks.register(sink.url, "whsec_snapshot")
    meter = await _meter(client)
    customer = (await client.v1.customers.create_async({})).id
    session = await client.v2.billing.meter_event_session.create_async()
    old = (NOON - timedelta(days=36)).isoformat()
    bad = [
        ("meter_event_customer_not_found", _event("cus_none")),
        ("meter_event_no_customer_defined", _event(customer, payload={"value": "1"})),
        ("meter_event_invalid_value", _event(customer, "1.5")),
        ("meter_event_value_too_many_digits", _event(customer, "1" * 16)),
        ("timestamp_too_far_in_past", _event(customer, timestamp=old)),
        ("no_meter", _event(customer, event_name="none")),
    ]
    stream = stripe.StripeClient(
        session.authentication_token,
        base_addresses=fake.addresses,
        http_client=client._requestor._client,
    )
    events = [_event(customer), *(event for _, event in bad)]
    await stream.v2.billing.meter_event_stream.create_async({"events": events})
    assert await _used(client, meter.id, customer) == 5
    await fake.webhooks.send([one for one in fake.webhooks.pending if one.endpoint.thin])
    codes = {}
    for body, headers in zip(sink.bodies, sink.headers, strict=True):
        signature = headers["stripe-signature"]
        notice = client.parse_event_notification(body, signature, "whsec_thin", 10**9)
        assert b"error_types" not in body
        # `notice.fetch_event_async()` of stripe 16.1.0 sends a parameter of its own along, `usage`.
        event = await client.v2.core.events.retrieve_async(notice.id)
        for kind in event["data"]["reason"]["error_types"]:
            for sample in kind["sample_errors"]:
                codes[sample["request"]["identifier"]] = kind["code"]
    assert codes == {event["identifier"]: code for code, event in bad}


async def test_a_stream_forgets_what_it_has_seen_without_a_word_at_once(
    fake: StripeFake, client: stripe.StripeClient
) -> None:
    """A duplicate in a batch is no refusal: it does not count again, and a report says so."""
    meter = await _meter(client)
    customer = (await client.v1.customers.create_async({})).id
    session = await client.v2.billing.meter_event_session.create_async()
    stream = stripe.StripeClient(
        session.authentication_token,
        base_addresses=fake.addresses,
        http_client=client._requestor._client,
    ).v2.billing.meter_event_stream
    event = _event(customer)
    await stream.create_async({"events": [event, event]})
    await stream.create_async({"events": [event]})
    assert await _used(client, meter.id, customer) == 5
    found = await client.v2.core.events.list_async()
    assert {one.type for one in found.data} == {"v1.billing.meter.error_report_triggered"}
    fake.clock.advance(15 * 60)
    with pytest.raises(stripe.TemporarySessionExpiredError):
        await stream.create_async({"events": [event]})


async def test_an_event_can_be_taken_back_for_a_day(
    fake: StripeFake, client: stripe.StripeClient
) -> None:
    """https://docs.stripe.com/api/billing/meter-event-adjustment/create."""
    meter = await _meter(client)
    customer = (await client.v1.customers.create_async({})).id
    events = [_event(customer), _event(customer)]
    for event in events:
        await client.v1.billing.meter_events.create_async(event)
    adjustments = client.v1.billing.meter_event_adjustments

    def cancelling(event: Any) -> Any:
        cancel = {"identifier": event["identifier"]}
        return {"event_name": "usage", "type": "cancel", "cancel": cancel}

    await adjustments.create_async(cancelling(events[0]))
    assert await _used(client, meter.id, customer) == 5
    fake.clock.advance(86_401)
    with pytest.raises(stripe.InvalidRequestError):
        await adjustments.create_async(cancelling(events[1]))
    assert await _used(client, meter.id, customer) == 5


# --- webhooks -----------------------------------------------------------------------------------


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


# --- time ---------------------------------------------------------------------------------------


async def test_months_end_where_the_calendar_says(
    fake: StripeFake, client: stripe.StripeClient
) -> None:
    """https://docs.stripe.com/billing/subscriptions/billing-cycle: the 31st, or a month's last."""
    price = await _metered(client)
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
    price = await _metered(client)
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
    await client.v1.billing.meter_events.create_async(_event(customer.id, "900"))
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
    price = await _metered(client)
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


async def _metered(client: stripe.StripeClient) -> str:
    meter = await _meter(client)
    product = await client.v1.products.create_async({"name": "Usage"})
    price = await client.v1.prices.create_async(
        {
            "product": product.id,
            "currency": "usd",
            "unit_amount": 1,
            "recurring": {"interval": "month", "usage_type": "metered", "meter": meter.id},
        }
    )
    return price.id
