"""A closed month at Stripe: its invoice comes to our cents, and is paid once (I2)."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from stripe._http_client import HTTPClient
from tests.support.stripe_fake import Fault, Kind, running
from tests.support.stripe_rig import CENT, StripeRig, stripe_rig

from penstock_billing.ports.payments import (
    Charge,
    Payer,
    PaymentStatus,
    Provider,
    RefundOrder,
)
from penstock_shared.contracts.errors import (
    ConflictError,
    NotFoundError,
    PermanentError,
    SchemaError,
    UnavailableError,
)
from penstock_shared.contracts.invoices import LineKind

MID_NOVEMBER = datetime(2026, 11, 10, 12, tzinfo=UTC)
NOVEMBER = date(2026, 11, 1)
CLOSED = datetime(2026, 12, 1, 3, tzinfo=UTC)
_INVOICE = """
insert into billing.invoices (tenant, period, number, usage_microusd, subtotal_microusd,
    credit_microusd, due_microusd, events_seq, issued_at)
values ('acme', $1, 'acme-2026-11', $2, $3, $4, $5, 1, $6)"""
_LINES = """
insert into billing.invoice_lines
    (tenant, period, line, kind, description, from_day, to_day, amount_microusd)
select 'acme', $1, number, kind, kind, $1, $1, amount
from unnest($2::text[], $3::bigint[]) with ordinality as l (kind, amount, number)"""


@pytest.fixture
async def rig(postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StripeRig]:
    """A tenant that is subscribed in the middle of November."""
    monkeypatch.setattr(HTTPClient, "INITIAL_DELAY", 0.001)
    with running(seed=1) as fake:
        async with stripe_rig(fake, postgres_dsn, MID_NOVEMBER) as made:
            made.connection._http._timeout = 1.0
            await made.add_tenant("acme")
            await made.sync.look()
            yield made


async def close(rig: StripeRig, *lines: tuple[LineKind, int]) -> int:
    """Issue November's invoice with these lines; what is collected of it, in cents."""
    credit = -sum(amount for kind, amount in lines if kind is LineKind.CREDIT)
    total = sum(amount for _, amount in lines)
    await rig.postgres.fetch(_INVOICE, NOVEMBER, 0, total + credit, credit, total, rig.clock.now())
    kinds, amounts = [kind.value for kind, _ in lines], [amount for _, amount in lines]
    await rig.postgres.fetch(_LINES, NOVEMBER, kinds, amounts)
    return int(await rig.postgres.fetchval("select cents from billing.collections"))


async def payer(rig: StripeRig, card: str = "pm_card_visa") -> Payer:
    customer = await rig.gateway.add_customer("acme", "Acme")
    return Payer("acme", Provider.STRIPE, customer, await rig.gateway.add_method(customer, card))


def charge(of: Payer, cents: int) -> Charge:
    return Charge(str(uuid.uuid4()), of, NOVEMBER, "acme-2026-11", cents)


def invoices(rig: StripeRig) -> list[Any]:
    """Stripe's, but for the empty ones that begin subscriptions."""
    found = rig.fake.account.store.all("invoice")
    return [one for one in found if one["billing_reason"] != "subscription_create"]


async def metered(rig: StripeRig, microusd: int) -> None:
    """Usage of November, pushed; then the month is over and Stripe has made its draft."""
    await rig.use("acme", microusd)
    await rig.pusher().look()
    rig.clock.set(CLOSED)
    rig.fake.catch_up()


async def test_stripes_total_is_ours_line_by_line(rig: StripeRig) -> None:
    """Metered usage once, fees and credits as items, parts of cents nowhere lost."""
    await metered(rig, 1234 * CENT + 5_678)
    cents = await close(
        rig,
        (LineKind.FEE, 500 * CENT + 9_000),
        (LineKind.USAGE, 1234 * CENT + 5_678),
        (LineKind.INCLUDED, -100 * CENT),
        (LineKind.CREDIT, -34 * CENT),
    )
    assert cents == 1601
    state = await rig.gateway.collect(charge(await payer(rig), cents))
    assert (state.status, state.cents) == (PaymentStatus.SUCCEEDED, 1601)
    (invoice,) = invoices(rig)
    amounts = [line["amount"] for line in invoice["lines"]["data"]]
    assert amounts == [1234, 501, -100, -34]
    assert (invoice["status"], invoice["total"]) == ("paid", 1601)
    assert await rig.gateway.refetch(state.reference) == state


async def test_a_month_before_the_subscription_is_an_invoice_of_items(rig: StripeRig) -> None:
    """There is no draft of a subscription's: our lines make the whole invoice."""
    for subscription in list(rig.fake.account.store.all("subscription")):
        rig.fake.account.store.drop(subscription["id"])
    rig.clock.set(CLOSED)
    cents = await close(rig, (LineKind.USAGE, 70 * CENT), (LineKind.FEE, 30 * CENT))
    state = await rig.gateway.collect(charge(await payer(rig), cents))
    assert (state.status, state.cents) == (PaymentStatus.SUCCEEDED, 100)
    paid = [one for one in invoices(rig) if one["id"] == state.reference]
    assert [line["amount"] for line in paid[0]["lines"]["data"]] == [70, 30]


async def test_what_the_meter_lacks_is_an_item(rig: StripeRig) -> None:
    """The meter dropped a push after it had taken it: the invoice is right all the same."""
    await rig.use("acme", 300 * CENT)
    await rig.pusher().look()
    rig.fake.account.received.clear()
    for event in list(rig.fake.account.store.all("billing.meter_event")):
        rig.fake.account.store.drop(event["id"])
    rig.clock.set(CLOSED)
    rig.fake.catch_up()
    attempt = charge(await payer(rig), await close(rig, (LineKind.USAGE, 300 * CENT)))
    with pytest.raises(UnavailableError):  # it may only be late
        await rig.gateway.collect(attempt)
    rig.clock.advance(timedelta(days=3))
    state = await rig.gateway.collect(attempt)
    assert (state.status, state.cents) == (PaymentStatus.SUCCEEDED, 300)
    (invoice,) = invoices(rig)
    assert [line["amount"] for line in invoice["lines"]["data"]] == [0, 300]


async def test_what_the_meter_counts_late_is_waited_for(rig: StripeRig) -> None:
    """Taken, but not in its sum yet: it would come to the item that makes up for it."""
    await rig.use("acme", 300 * CENT)
    rig.clock.set(CLOSED)
    rig.fake.account.metering_lag_s = 600
    await rig.pusher().look()
    attempt = charge(await payer(rig), await close(rig, (LineKind.USAGE, 300 * CENT)))
    with pytest.raises(UnavailableError):
        await rig.gateway.collect(attempt)
    rig.clock.advance(timedelta(minutes=11))
    rig.fake.catch_up()
    state = await rig.gateway.collect(attempt)
    assert (state.status, state.cents) == (PaymentStatus.SUCCEEDED, 300)
    (invoice,) = invoices(rig)
    assert [line["amount"] for line in invoice["lines"]["data"]] == [300]


async def test_nothing_is_issued_before_the_meter_has_the_month(rig: StripeRig) -> None:
    """Usage that is not pushed yet, or that has no draft yet, waits."""
    await rig.use("acme", 300 * CENT)
    of = await payer(rig)
    cents = await close(rig, (LineKind.USAGE, 300 * CENT))
    rig.clock.advance(timedelta(days=2))
    with pytest.raises(UnavailableError):
        await rig.gateway.collect(charge(of, cents))
    await rig.pusher().look()
    with pytest.raises(UnavailableError):
        await rig.gateway.collect(charge(of, cents))
    rig.clock.set(CLOSED)
    rig.fake.catch_up()
    assert (await rig.gateway.collect(charge(of, cents))).status is PaymentStatus.SUCCEEDED
    assert len(invoices(rig)) == 1


async def test_a_month_that_credits_have_paid_leaves_no_draft_that_asks_for_it(
    rig: StripeRig,
) -> None:
    """Stripe's draft of the metered usage is brought to nothing and closed, once."""
    await metered(rig, 80 * CENT)
    cents = await close(rig, (LineKind.USAGE, 80 * CENT), (LineKind.CREDIT, -80 * CENT))
    assert cents == 0
    assert invoices(rig)[0]["total"] == 80
    for _ in range(2):
        assert await rig.sync.look() == 0
        assert [(one["status"], one["total"]) for one in invoices(rig)] == [("paid", 0)]
    assert await rig.book.empty_months() == []
    assert list(rig.fake.account.store.all("charge")) == []


async def test_who_pays_elsewhere_is_not_metered_and_who_refuses_is_left_to_the_invoice(
    rig: StripeRig,
) -> None:
    """A payer of another provider's; and three days after a month nobody waits for the meter."""
    await rig.use("acme", 20 * CENT)
    await rig.postgres.fetch(
        "insert into billing.payers values ('acme', 'braintree', '1', '2', now())"
    )
    await rig.pusher().look()
    assert await rig.rows() == []
    await rig.postgres.fetch("delete from billing.payers")
    rig.clock.set(CLOSED)
    assert not await rig.pushes.complete("acme", NOVEMBER, rig.clock.now())
    rig.clock.advance(timedelta(days=3))
    rig.fake.catch_up()
    cents = await close(rig, (LineKind.USAGE, 20 * CENT), (LineKind.FEE, 100 * CENT))
    state = await rig.gateway.collect(charge(await payer(rig), cents))
    assert (state.status, state.cents) == (PaymentStatus.SUCCEEDED, 120)


async def test_whatever_call_fails_the_invoice_is_made_and_paid_once(rig: StripeRig) -> None:
    """Each call in turn fails before or after its effect; the same attempt is asked for again."""
    await metered(rig, 40 * CENT)
    cents = await close(rig, (LineKind.USAGE, 40 * CENT), (LineKind.FEE, 60 * CENT))
    attempt = charge(await payer(rig), cents)
    for skip in range(6):
        for kind, effect in ((Kind.ERROR, False), (Kind.ERROR, True), (Kind.RESET, True)):
            fault = Fault(kind, "/v1/", effect=effect, times=3, skip=skip)
            rig.fake.faults.plan(fault)
            with contextlib.suppress(UnavailableError):
                await rig.gateway.collect(attempt)
            rig.fake.faults.clear()
    state = await rig.gateway.collect(attempt)
    assert (state.status, state.cents) == (PaymentStatus.SUCCEEDED, 100)
    assert [(one["status"], one["total"]) for one in invoices(rig)] == [("paid", 100)]
    charges = [c for c in rig.fake.account.store.all("charge") if c["paid"]]
    assert [one["amount"] for one in charges] == [100]


async def test_a_decline_is_tried_once_for_each_payment(rig: StripeRig) -> None:
    """The same attempt again is the same decline; the next one may pay."""
    await metered(rig, 90 * CENT)
    cents = await close(rig, (LineKind.USAGE, 90 * CENT))
    attempt = charge(await payer(rig, "pm_card_chargeCustomerFail"), cents)
    for _ in range(3):
        state = await rig.gateway.collect(attempt)
        assert (state.status, state.failure) == (PaymentStatus.FAILED, "card_declined")
    assert len(list(rig.fake.account.store.all("charge"))) == 1
    assert (await rig.gateway.refetch(state.reference)).status is PaymentStatus.FAILED
    again = charge(await payer(rig), cents)
    assert (await rig.gateway.collect(again)).status is PaymentStatus.SUCCEEDED
    assert (await rig.gateway.collect(again)).status is PaymentStatus.SUCCEEDED
    assert len(list(rig.fake.account.store.all("charge"))) == 2


async def test_a_payment_method_that_was_taken_away_is_a_failure_of_the_tenants(
    rig: StripeRig,
) -> None:
    """Not ours: else nobody who takes the card away would ever be past due."""
    await metered(rig, 90 * CENT)
    cents = await close(rig, (LineKind.USAGE, 90 * CENT))
    attempt = charge(await payer(rig), cents)
    await rig.connection.client.v1.payment_methods.detach_async(attempt.payer.method)
    for _ in range(2):
        state = await rig.gateway.collect(attempt)
        assert (state.status, state.cents) == (PaymentStatus.FAILED, 90)
        assert state.failure
    again = charge(await payer(rig), cents)
    assert (await rig.gateway.collect(again)).status is PaymentStatus.SUCCEEDED


async def test_a_customer_that_was_deleted_blocks_nothing(rig: StripeRig) -> None:
    """Nothing was charged: the attempt has failed, and the next payer's goes through."""
    of = await payer(rig)
    await rig.connection.client.v1.customers.delete_async(of.customer)
    rig.clock.set(CLOSED)
    cents = await close(rig, (LineKind.FEE, 90 * CENT))
    state = await rig.gateway.collect(charge(of, cents))
    assert (state.status, state.failure) == (PaymentStatus.FAILED, "customer_deleted")
    again = charge(await payer(rig), cents)
    assert (await rig.gateway.collect(again)).status is PaymentStatus.SUCCEEDED
    with pytest.raises(PermanentError):  # another account's: nobody is to blame but us
        await rig.gateway.collect(charge(replace(of, customer="cus_of_others"), cents))


async def test_money_is_given_back_once(rig: StripeRig) -> None:
    """A refund has our id; more than was paid is refused; the notice of one finds its invoice."""
    await metered(rig, 500 * CENT)
    cents = await close(rig, (LineKind.USAGE, 500 * CENT))
    state = await rig.gateway.collect(charge(await payer(rig), cents))
    order = RefundOrder(str(uuid.uuid4()), state.reference, 200)
    first = await rig.gateway.refund(order)
    assert first.cents == 200
    assert (await rig.gateway.refund(order)).reference == first.reference
    with pytest.raises(ConflictError):
        await rig.gateway.refund(RefundOrder(str(uuid.uuid4()), state.reference, 301))
    rig.fake.settle_refunds()
    known = await rig.gateway.refetch(state.reference)
    assert [(r.refund_id, r.status) for r in known.refunds] == [
        (order.refund_id, PaymentStatus.SUCCEEDED)
    ]


async def test_what_stripe_does_not_know_is_said(rig: StripeRig) -> None:
    """Unknown payments and payment methods are errors of the caller's."""
    with pytest.raises(NotFoundError):
        await rig.gateway.refetch("in_nothing")
    customer = await rig.gateway.add_customer("acme", "Acme")
    with pytest.raises(SchemaError):
        await rig.gateway.add_method(customer, "pm_nothing")
