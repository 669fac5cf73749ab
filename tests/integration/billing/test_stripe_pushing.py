"""Usage pushed to Stripe's meter: each cent once, whatever fails (I2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from itertools import product

import pytest
from stripe._http_client import HTTPClient
from tests.support.stripe_fake import Fault, Kind, running
from tests.support.stripe_rig import CENT, StripeRig, stripe_rig

NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)
NOVEMBER = date(2026, 11, 1)


@pytest.fixture
async def rig(postgres_dsn: str) -> AsyncIterator[StripeRig]:
    """Two tenants with customers, a meter, and a fake at noon of a November day."""
    with running(seed=1) as fake:
        async with stripe_rig(fake, postgres_dsn, NOON) as made:
            for tenant in ("acme", "globex"):
                await made.add_tenant(tenant)
            await made.sync.look()
            yield made


async def test_whole_cents_are_pushed_and_the_remainder_is_carried(rig: StripeRig) -> None:
    """What the meter has is the ledger's usage rounded down, at every moment (I2)."""
    pusher = rig.pusher()
    for used, counted in ((CENT * 3 + 9_999, 3), (1, 4), (CENT - 1, 4), (1, 5)):
        await rig.use("acme", used)
        await pusher.look()
        assert rig.counted() == counted
    assert [row[:3] for row in await rig.rows()] == [
        ("acme", 1, 3), ("acme", 2, 1), ("acme", 3, 1),
    ]  # fmt: skip
    customer = await rig.postgres.fetchval(
        "select customer_id from billing.stripe_customers where tenant = 'acme'"
    )
    assert await rig.meter().summed_cents(customer, NOVEMBER) == 5


@pytest.mark.parametrize("stream_from", [1, 50])
async def test_a_push_of_which_nobody_knows_is_sent_again_and_counts_once(
    rig: StripeRig, monkeypatch: pytest.MonkeyPatch, stream_from: int
) -> None:
    """Errors, limits, timeouts and resets, before and after the effect, v1 and v2 (I2)."""
    monkeypatch.setattr(HTTPClient, "INITIAL_DELAY", 0.001)
    rig.connection._http._timeout = 0.2
    path = "/v1/billing/meter_events" if stream_from > 1 else "/meter-events"
    pusher = rig.pusher(stream_from)
    for turn, (kind, effect) in enumerate(product(Kind, (False, True)), start=1):
        rig.fake.faults.plan(Fault(kind, path, effect=effect, times=4))
        await rig.use("acme", 7 * CENT)
        await rig.use("globex", 5 * CENT)
        await pusher.look()
        while await rig.pushes.unsettled(1):
            await pusher.look()
        rig.fake.faults.clear()
        assert rig.counted() == 12 * turn, (kind, effect)
    assert {row[3] for row in await rig.rows()} <= {"accepted", "duplicate"}


async def test_what_was_sent_long_ago_is_asked_for_before_it_is_sent_again(rig: StripeRig) -> None:
    """After 24 hours Stripe forgets identifiers: the meter's sums say what it has (I2)."""
    pusher = rig.pusher()
    await rig.use("acme", 7 * CENT)
    await rig.use("globex", 5 * CENT)
    await rig.pushes.plan(rig.clock.now())
    acme, globex = await rig.pushes.unsettled(10)
    await rig.pushes.sending([acme, globex], rig.clock.now())
    await rig.meter().report([acme])  # and the process died; globex' never left
    rig.clock.advance(timedelta(hours=30))
    await pusher.look()
    assert [row[3] for row in await rig.rows()] == ["summed", "absent"]
    await pusher.look()
    assert rig.counted() == 12
    assert [(row[1], row[3]) for row in await rig.rows()] == [
        (1, "summed"), (1, "absent"), (2, "accepted"),
    ]  # fmt: skip


async def test_usage_that_the_meter_takes_no_more_is_left_to_the_invoice(rig: StripeRig) -> None:
    """Past the 35 days nothing is sent, and the month is complete as far as the meter goes."""
    await rig.use("acme", 7 * CENT)
    await rig.pushes.plan(rig.clock.now())
    pusher = rig.pusher()
    assert not await rig.pushes.complete("acme", NOVEMBER, rig.clock.now())
    rig.clock.advance(timedelta(days=36))
    await pusher.look()
    assert [row[3] for row in await rig.rows()] == ["refused"]
    rig.clock.set(datetime(2027, 1, 4, tzinfo=UTC))
    await pusher.look()
    assert await rig.pushes.complete("acme", NOVEMBER, rig.clock.now())
    assert rig.counted() == 0
    assert await rig.pushes.taken_cents("acme", NOVEMBER) == 0


async def test_a_month_that_is_over_gets_its_usage_within_it(rig: StripeRig) -> None:
    """Clock edge: what is metered after midnight of the last day counts in the old month."""
    pusher = rig.pusher()
    rig.clock.set(datetime(2026, 12, 1, 0, 0, 1, tzinfo=UTC))
    await rig.use("acme", 4 * CENT, NOVEMBER)
    await rig.use("acme", 2 * CENT)
    await pusher.look()
    customer = await rig.postgres.fetchval(
        "select customer_id from billing.stripe_customers where tenant = 'acme'"
    )
    meter = rig.meter()
    assert await meter.summed_cents(customer, NOVEMBER) == 4
    assert await meter.summed_cents(customer, date(2026, 12, 1)) == 2


async def test_a_hundred_tenants_go_in_one_call_of_the_stream(rig: StripeRig) -> None:
    """v2 takes a hundred events at once, under a session of its own that is renewed."""
    for number in range(120):
        await rig.add_tenant(f"t{number}")
        customer = {"id": f"cus_{number}", "object": "customer", "test_clock": None}
        rig.fake.account.store.put(customer)
    await rig.postgres.fetch(
        "insert into billing.stripe_customers "
        "select 't' || n, now(), 'cus_' || n, 't' || n, 'sub_' || n, $1 "
        "from generate_series(0, 119) as n",
        NOON - timedelta(days=1),
    )
    pusher = rig.pusher(stream_from=100)
    for spell in range(2):
        await rig.postgres.fetch(
            "insert into billing.transfers (tenant, period, kind, debit, credit, microusd, "
            "reference) select 't' || n, $1, 'usage', 'receivable', 'usage', 10000 * (n + 1), 'x' "
            "from generate_series(0, 119) as n",
            NOVEMBER,
        )
        assert await pusher.look() == 120
        assert rig.counted() == (spell + 1) * 120 * 121 // 2
        rig.clock.advance(timedelta(minutes=20))


async def test_two_replicas_push_each_cent_once(rig: StripeRig) -> None:
    """Both see the same rows; the same identifier twice is one event (I2)."""
    one, other = rig.pusher(), rig.pusher()
    for _ in range(3):
        await rig.use("acme", 3 * CENT)
        await asyncio.gather(one.look(), other.look())
    await one.look()
    assert rig.counted() == 9


async def test_a_customer_that_is_gone_keeps_nobody_else_waiting(rig: StripeRig) -> None:
    """Its sums cannot be asked for: the other pushes in doubt come to their end (I8)."""
    pusher = rig.pusher()
    await rig.use("acme", 7 * CENT)
    await rig.use("globex", 5 * CENT)
    await rig.pushes.plan(rig.clock.now())
    both = await rig.pushes.unsettled(10)
    await rig.pushes.sending(both, rig.clock.now())
    await rig.connection.client.v1.customers.delete_async(both[0].customer)
    rig.clock.advance(timedelta(hours=30))
    await pusher.look()
    assert [(row[0], row[3]) for row in await rig.rows()] == [("acme", None), ("globex", "absent")]


async def test_totals_are_the_sums_of_pushes_and_reports_name_strangers_too(rig: StripeRig) -> None:
    """What was accepted and dropped later leaves the totals; other identifiers are passed over."""
    pusher = rig.pusher()
    for cents in (3, 4):
        await rig.use("acme", cents * CENT)
        await pusher.look()
    named = [
        "acme:2026-11:1",
        "acme:2026-13:1",
        "other",
        "a:b:c",
        f"acme:2026-11:{2**40}",
        "acme::1",
    ]
    assert await rig.pushes.refuse([*named, "acme:2026-11:1"], rig.clock.now()) == 1
    assert await rig.pushes.refuse(named, rig.clock.now()) == 0
    rows = await rig.postgres.fetch("select last, cents, refused from billing.meter_totals")
    assert [tuple(row) for row in rows] == [(2, 4, 1)]
    await pusher.look()
    assert await rig.pushes.taken_cents("acme", NOVEMBER) == 7
