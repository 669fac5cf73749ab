"""Stripe is kept in step with the tenants: once, whatever fails in between (I2)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import REGISTRY
from stripe._http_client import HTTPClient
from tests.support.stripe_fake import Fault, Kind, running
from tests.support.stripe_rig import StripeRig, stripe_rig

from penstock_shared.contracts.errors import NotFoundError, PermanentError, UnavailableError

NOON = datetime(2026, 12, 31, 12, tzinfo=UTC)


@pytest.fixture
async def rig(postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StripeRig]:
    """The last day of a year."""
    monkeypatch.setattr(HTTPClient, "INITIAL_DELAY", 0.001)
    with running(seed=1) as fake:
        async with stripe_rig(fake, postgres_dsn, NOON) as made:
            made.connection._http._timeout = 1.0
            yield made


def kept(rig: StripeRig, kind: str) -> int:
    return len(list(rig.fake.account.store.all(kind)))


async def test_every_tenant_gets_a_customer_and_a_subscription_of_calendar_months(
    rig: StripeRig,
) -> None:
    """Cycles end at midnight UTC on the first, and no invoice leaves by itself."""
    for tenant in ("acme", "globex"):
        await rig.add_tenant(tenant)
    assert await rig.sync.look() == 0
    subscriptions = list(rig.fake.account.store.all("subscription"))
    assert len(subscriptions) == 2
    for subscription in subscriptions:
        assert subscription["pause_collection"]["behavior"] == "keep_as_draft"
        anchor = datetime.fromtimestamp(subscription["billing_cycle_anchor"], UTC)
        assert anchor == datetime(2027, 1, 1, tzinfo=UTC)
    rig.clock.set(datetime(2027, 2, 20, tzinfo=UTC))
    rig.fake.catch_up()
    made = rig.fake.account.store.all("invoice")
    drafts = [one for one in made if one["billing_reason"] == "subscription_cycle"]
    ends = {datetime.fromtimestamp(one["period_end"], UTC).date().isoformat() for one in drafts}
    assert ends == {"2027-01-01", "2027-02-01"}
    assert {one["status"] for one in drafts} == {"draft"}


async def test_names_follow_and_those_who_pay_elsewhere_are_left_out(rig: StripeRig) -> None:
    """A new name is told; a tenant that pays through Braintree is none of Stripe's."""
    for tenant in ("acme", "globex"):
        await rig.add_tenant(tenant)
    await rig.postgres.fetch(
        "insert into billing.payers values ('globex', 'braintree', '1', '2', now())"
    )
    await rig.sync.look()
    await rig.postgres.fetch("update billing.tenants set name = 'Acme & Sons'")
    await rig.sync.look()
    names = [one["name"] for one in rig.fake.account.store.all("customer")]
    assert names == ["Acme & Sons"]


@pytest.mark.parametrize("effect", [False, True])
async def test_whatever_call_fails_everything_is_made_once(rig: StripeRig, *, effect: bool) -> None:
    """Each call in turn is answered with errors or not at all, before or after its effect (I2)."""
    await rig.add_tenant("acme")
    for skip in range(7):
        for kind in (Kind.ERROR, Kind.RESET):
            rig.fake.faults.plan(Fault(kind, "/v1/", effect=effect, times=3, skip=skip % 3))
            with contextlib.suppress(UnavailableError):
                await rig.sync.look()
            rig.fake.faults.clear()
            rig.clock.advance(timedelta(seconds=61))
    assert await rig.sync.look() == 0
    kinds = ("product", "price", "billing.meter", "customer", "subscription")
    assert {kind: kept(rig, kind) for kind in kinds} == dict.fromkeys(kinds, 1)


async def test_a_database_that_lost_all_finds_what_stripe_has(rig: StripeRig) -> None:
    """A backup from before the first look: nothing is made a second time but customers' rows."""
    await rig.add_tenant("acme")
    await rig.sync.look()
    await rig.postgres.fetch("delete from billing.stripe_catalogue")
    await rig.postgres.fetch(
        "update billing.stripe_customers set customer_id = null, "
        "subscription_id = null, subscribed_at = null, told_name = null"
    )
    rig.clock.advance(timedelta(days=3))
    assert await rig.sync.look() == 0
    kinds = ("product", "price", "billing.meter", "customer", "subscription")
    assert {kind: kept(rig, kind) for kind in kinds} == dict.fromkeys(kinds, 1)


async def test_two_replicas_and_a_command_make_one_customer(rig: StripeRig) -> None:
    """The row is held while Stripe is asked."""
    await rig.add_tenant("acme")
    made = await asyncio.gather(*(rig.gateway.add_customer("acme", "Acme") for _ in range(3)))
    assert len(set(made)) == 1
    assert kept(rig, "customer") == 1
    with pytest.raises(NotFoundError):
        await rig.gateway.add_customer("nobody", "Nobody")


async def test_a_customer_that_was_deleted_at_stripe_is_made_anew(rig: StripeRig) -> None:
    """With a subscription of its own; what the old one was metered is asked for by items."""
    await rig.add_tenant("acme")
    await rig.sync.look()
    gone = await rig.gateway.add_customer("acme", "acme")
    await rig.connection.client.v1.customers.delete_async(gone)
    rig.clock.advance(timedelta(minutes=10))
    made = await rig.gateway.add_customer("acme", "acme")
    assert made != gone
    assert await rig.sync.look() == 0
    (tenant,) = await rig.book.tenants()
    assert tenant.customer == made
    living = await rig.connection.client.v1.subscriptions.list_async({"customer": made})
    assert [one.id for one in living.data] == [tenant.subscription]


async def test_the_key_of_another_account_changes_nothing_there(
    rig: StripeRig, postgres_dsn: str
) -> None:
    """Test mode and live, or a wrong key: said and counted, and nobody gets a second customer."""
    await rig.add_tenant("acme")
    await rig.sync.look()
    with running(seed=2) as other:
        async with stripe_rig(other, postgres_dsn, NOON) as moved:
            await moved.add_tenant("globex")
            with pytest.raises(PermanentError) as raised:
                await moved.sync.look()
            assert raised.value.code == "stripe_account_changed"
            assert REGISTRY.get_sample_value("billing_stripe_sync_behind") == 2
            assert kept(moved, "customer") == kept(moved, "billing.meter") == 0


async def test_a_slow_stripe_holds_one_connection_at_most(
    rig: StripeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More claims than the pool has connections: metering gets one at once."""
    hangs = asyncio.Event()
    monkeypatch.setattr(rig.mirror, "_find_customer", lambda *_: hangs.wait())
    tenants = [f"t{number}" for number in range(6)]
    for tenant in tenants:
        await rig.add_tenant(tenant)
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(rig.mirror.put_customer(one, one)) for one in tenants]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(2):
            await asyncio.gather(*(rig.postgres.fetch("select pg_sleep(0.1)") for _ in range(3)))
        for task in waiting:
            task.cancel()
