"""Nobody is suspended who has paid, or whose money is on its way (I8)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date

import pytest
from tests.support.payments import PaymentRig, payment_rig

from penstock_billing.ports.payments import Charge, PaymentState, PaymentStatus
from penstock_shared.contracts.accounts import TenantStatus
from penstock_shared.contracts.errors import UnavailableError


@pytest.fixture
async def rig(postgres_dsn: str) -> AsyncIterator[PaymentRig]:
    """A tenant whose card is declined on the day of its invoice."""
    async with payment_rig(postgres_dsn) as made:
        await made.tenant()
        made.provider.outcome = PaymentStatus.FAILED
        await made.issue(2_000_000)
        await made.collector.look()
        yield made


async def walk(rig: PaymentRig, hours: int) -> None:
    """Look every hour."""
    for _ in range(hours):
        rig.clock.advance(hours=1)
        await rig.collector.look()


async def test_money_on_its_way_shuts_nobody_out(rig: PaymentRig) -> None:
    """A sale takes days to settle: until it has failed, the tenant stays in, or is let in."""
    await walk(rig, 13 * 24)
    rig.provider.outcome = PaymentStatus.PENDING
    await rig.ask("set-payer", tenant="acme", provider="braintree", token="nonce-2")
    await walk(rig, 4 * 24)
    assert (await rig.record()).status is TenantStatus.ACTIVE
    on_its_way = list(rig.provider.payments)[-1]
    await rig.collector.on_notice(rig.provider.becomes(on_its_way, PaymentStatus.FAILED))
    assert (await rig.record()).status is TenantStatus.SUSPENDED
    await rig.ask("set-payer", tenant="acme", provider="braintree", token="nonce-3")
    await rig.collector.look()
    assert (await rig.record()).status is TenantStatus.ACTIVE
    assert await rig.standings() == ["past_due", "grace", "suspended", "grace"]


async def test_one_months_money_on_its_way_excuses_no_other(rig: PaymentRig) -> None:
    """Two months are owed, and one of them is being paid."""
    await rig.issue(1_000_000, date(2026, 8, 1))
    await walk(rig, 13 * 24)
    rig.provider.outcome = PaymentStatus.PENDING
    await rig.ask("collect-invoice", tenant="acme", month="2026-08")
    await rig.collector.look()
    rig.provider.outcome = PaymentStatus.FAILED
    await walk(rig, 24)
    assert (await rig.record()).status is TenantStatus.SUSPENDED


async def test_who_paid_by_hand_is_asked_for_before_the_suspension(
    rig: PaymentRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody told us: no webhook came. The last attempt finds the invoice paid."""
    await walk(rig, 10 * 24)
    first = next(iter(rig.provider.payments))
    paid = replace(rig.provider.payments[first], status=PaymentStatus.SUCCEEDED)

    async def collect(_: Charge) -> PaymentState:
        return paid

    monkeypatch.setattr(rig.provider, "collect", collect)
    await walk(rig, 5 * 24)
    assert await rig.standings() == ["past_due", "grace", "current"]
    assert await rig.balance("payments") == 2_000_000


async def test_a_provider_that_takes_for_ever_does_not_keep_the_standings_waiting(
    rig: PaymentRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claims end while others are asked for: a look takes what was due when it began, once."""
    for number in range(10):
        await rig.tenant(f"t{number}")
        await rig.issue(1_000_000, tenant=f"t{number}")

    async def slow(_: Charge) -> PaymentState:
        rig.clock.advance(minutes=3)
        raise UnavailableError("away")

    monkeypatch.setattr(rig.provider, "collect", slow)
    rig.clock.advance(days=7)
    async with asyncio.timeout(20):
        await rig.collector.look()
    assert await rig.standings() == ["past_due", "grace"]
