"""Payments under any sequence of what can happen: the books agree, nobody pays twice (I2, I7)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import date

import pytest
from tests.support.payments import PaymentRig, payment_rig

from penstock_billing.ports.payments import PaymentStatus, RefundState
from penstock_shared.contracts.accounts import SuspensionReason, TenantStatus
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.contracts.payments import PaymentList, PaymentProgress

TENANTS = ("acme", "globex")
STATUSES = (PaymentStatus.SUCCEEDED, PaymentStatus.PENDING, PaymentStatus.FAILED)
_STEPS = 60


class Story:
    """What operators, providers, clocks and crashes do, in an order drawn by lot."""

    def __init__(self, rig: PaymentRig, rng: random.Random) -> None:
        self.rig = rig
        self.rng = rng
        self.months = dict.fromkeys(TENANTS, 0)
        self.steps: tuple[Callable[[], Awaitable[None]], ...] = (
            self.issue,
            self.look,
            self.look,
            self.wait,
            self.mood,
            self.lose,
            self.move,
            self.retell,
            self.refund,
            self.refund_at_the_desk,
            self.collect,
        )

    async def issue(self) -> None:
        tenant = self.rng.choice(TENANTS)
        month = self.months[tenant]
        self.months[tenant] += 1
        due = self.rng.choice((0, 9_999, 12_345, self.rng.randrange(10**6)))
        await self.rig.issue(due, date(2020 + month // 12, month % 12 + 1, 1), tenant)

    async def look(self) -> None:
        replicas = [self.rig.another_replica() for _ in range(self.rng.randint(1, 3))]
        await asyncio.gather(*(one.look() for one in replicas))

    async def wait(self) -> None:
        self.rig.clock.advance(minutes=self.rng.choice((1, 3, 61, 24 * 60, 5 * 24 * 60)))

    async def mood(self) -> None:
        self.rig.provider.outcome = self.rng.choice(STATUSES)
        self.rig.provider.is_away = self.rng.random() < 0.2

    async def lose(self) -> None:
        self.rig.provider.loses_answers = self.rng.randint(1, 3)

    async def move(self) -> None:
        """A pending payment comes to its end, and a notice tells of it, or none does."""
        payments = self.rig.provider.payments.values()
        pending = [one.reference for one in payments if one.status is PaymentStatus.PENDING]
        if pending:
            end = self.rng.choice((PaymentStatus.SUCCEEDED, PaymentStatus.FAILED))
            notice = self.rig.provider.becomes(self.rng.choice(pending), end)
            if self.rng.random() < 0.5:
                await self.rig.collector.on_notice(notice)

    async def retell(self) -> None:
        """An old notice once more."""
        payments = list(self.rig.provider.payments.values())
        if payments:
            one = self.rng.choice(payments)
            notice = self.rig.provider.becomes(one.reference, one.status)
            await asyncio.gather(*(self.rig.collector.on_notice(notice) for _ in range(2)))

    async def refund(self) -> None:
        paid = [
            one
            for one in (await listed(self.rig, self.rng.choice(TENANTS))).payments
            if one.progress is PaymentProgress.SUCCEEDED
        ]
        if paid:
            one = self.rng.choice(paid)
            await self.rig.ask(
                "refund-payment",
                tenant=one.tenant,
                payment_id=one.payment_id,
                refund_id=uuid.UUID(int=self.rng.getrandbits(128), version=4),
                cents=self.rng.choice((None, 1, max(1, one.cents // 2))),
                reason="drawn",
            )

    async def refund_at_the_desk(self) -> None:
        provider = self.rig.provider
        paid = [one for one in provider.payments.values() if one.status is PaymentStatus.SUCCEEDED]
        if paid:
            one = self.rng.choice(paid)
            given = sum(back.cents for back in one.refunds)
            if given < one.cents:
                back = RefundState(f"desk_{len(one.refunds)}", None, PaymentStatus.SUCCEEDED, 1)
                provider.payments[one.reference] = replace(one, refunds=(*one.refunds, back))

    async def collect(self) -> None:
        tenant = self.rng.choice(TENANTS)
        owed = [one for one in (await listed(self.rig, tenant)).collections if one.cents]
        if owed:
            month = self.rng.choice(owed).month
            await self.rig.ask("collect-invoice", tenant=tenant, month=month)

    async def end(self) -> None:
        """The provider is well again, everything pending ends, and everybody looks."""
        provider = self.rig.provider
        provider.is_away, provider.loses_answers = False, 0
        provider.outcome = PaymentStatus.SUCCEEDED
        for _ in range(3):
            for payment in list(provider.payments.values()):
                refunds = tuple(
                    replace(one, status=PaymentStatus.SUCCEEDED)
                    if one.status is PaymentStatus.PENDING
                    else one
                    for one in payment.refunds
                )
                provider.payments[payment.reference] = replace(payment, refunds=refunds)
                if payment.status is PaymentStatus.PENDING:
                    provider.becomes(payment.reference, PaymentStatus.SUCCEEDED)
            for tenant in TENANTS:
                await self.rig.ask(
                    "set-payer", tenant=tenant, provider="braintree", token="nonce-9"
                )
            self.rig.clock.advance(hours=2)
            await self.look()
        for payment in provider.payments.values():
            await self.rig.collector.on_notice(provider.becomes(payment.reference, payment.status))


async def listed(rig: PaymentRig, tenant: str) -> PaymentList:
    answer = await rig.ask("list-payments", tenant=tenant, limit=500)
    assert isinstance(answer, PaymentList)
    return answer


async def check(rig: PaymentRig) -> None:
    """Books of ours, of the provider's, and the ledger say the same; everybody is square."""
    moved = [one for one in rig.provider.payments.values() if one.status is PaymentStatus.SUCCEEDED]
    given = [
        back.cents
        for one in moved
        for back in one.refunds
        if back.status is PaymentStatus.SUCCEEDED
    ]
    paid = sum(one.cents for one in moved)
    assert await rig.balance("payments") == (paid - sum(given)) * 10_000
    assert await rig.balance("payments") == -await rig.balance("receivable")
    for tenant in TENANTS:
        found = await listed(rig, tenant)
        for collection in found.collections:
            assert collection.paid_cents == collection.cents, "paid, and not twice"
            assert collection.failing_since is None
        due = sum(one.due_microusd for one in found.collections)
        carried = found.collections[0].carried_microusd if found.collections else 0
        assert sum(one.cents for one in found.collections) * 10_000 + carried == due
        assert (await rig.record(tenant)).status is TenantStatus.ACTIVE
    assert paid == sum(
        [one.cents for name in TENANTS for one in (await listed(rig, name)).collections]
    )


@pytest.mark.parametrize(
    "number",
    [*range(2), *(pytest.param(number, marks=pytest.mark.long) for number in range(2, 60))],
)
async def test_whatever_happens_everything_is_paid_once_and_the_books_agree(
    postgres_dsn: str, number: int
) -> None:
    """Invoices, lost answers, declines, refunds, replicas and notices in any order (I2).

    Nobody is suspended who owes nothing, and whoever was suspended for a debt is not after it.
    """
    seed = os.environ.get("PENSTOCK_FAULT_SEED") or str(random.SystemRandom().randrange(2**31))
    print(f"PENSTOCK_FAULT_SEED={seed}")
    rng = random.Random(f"{seed}/{number}")
    async with payment_rig(postgres_dsn) as rig:
        for tenant in TENANTS:
            await rig.tenant(tenant)
        story = Story(rig, rng)
        for _ in range(_STEPS):
            with contextlib.suppress(PenstockError):
                await rng.choice(story.steps)()
            for tenant in TENANTS:
                record = await rig.record(tenant)
                assert record.suspended_reason in {None, SuspensionReason.PAST_DUE}
        await story.end()
        await check(rig)
