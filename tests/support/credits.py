"""Tenants that pay in advance, and what their credit comes to when it is done by hand."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta

from tests.support.quotas import QuotaRig, ended, routed, tenant

from penstock_billing.adapters.postgres_credits import PostgresCredits
from penstock_billing.adapters.postgres_plans import PostgresPlans
from penstock_billing.domain.announcements import Act
from penstock_billing.domain.credits import apply_credits, without_included
from penstock_billing.domain.plans import month_start
from penstock_billing.handlers.credits import CreditCommands
from penstock_billing.ports.credits import Grant
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.credits import CreditGrant, CreditKind, GrantCredit
from penstock_shared.contracts.plans import PlanTerms, Subscription
from penstock_shared.contracts.requests import RequestEnded, RequestRouted
from penstock_shared.contracts.usage import Price

ONE_EACH = Price(input_microusd_per_1k=1_000, output_microusd_per_1k=1_000)
"""A micro-dollar for each token: what is reserved is the most that it can cost."""
LONG_AGO = date(2020, 1, 1)


class NoRelay:
    """What is in the outbox stays there."""

    async def flush(self) -> None:
        """Publish nothing."""


def at_noon(day: date) -> datetime:
    """A moment of that day."""
    return datetime.combine(day, time(12), UTC)


def asked(microusd: int, *, of: str = "acme", on: date | None = None) -> RequestRouted:
    """A request that may cost so much."""
    at = datetime.now(UTC) if on is None else at_noon(on)
    return routed(microusd, of=of, accepted_at=at, price=ONE_EACH)


def cost(request: RequestRouted, microusd: int) -> RequestEnded:
    """Its terminal, which costs so much."""
    return ended(request, microusd).model_copy(update={"price": ONE_EACH})


async def prepaid(
    rig: QuotaRig, name: str = "acme", *, included: int = 0, on: date = LONG_AGO, quotas: str = ""
) -> TenantRecord:
    """A tenant with a plan that allows no overage, as routers know it."""
    record = tenant(name, *quotas.split()).model_copy(update={"limited_from": LONG_AGO})
    await rig.set_quotas(record)
    await subscribe(rig, name, on, included=included)
    return record


async def subscribe(
    rig: QuotaRig, name: str, on: date, *, included: int = 0, overage: bool = False
) -> Subscription:
    """Change its plan on a day."""
    plan = "pay-as-you-go"
    terms = PlanTerms(title="Prepaid", included_microusd=included, overage=overage)
    subscription = Subscription(tenant=name, from_day=on, plan=plan, version=1, terms=terms)
    async with PostgresPlans(rig.postgres).transaction() as transaction:
        await transaction.put_subscription(subscription, datetime.now(UTC))
    return subscription


async def grant(
    rig: QuotaRig,
    microusd: int,
    *,
    of: str = "acme",
    expires_on: date | None = None,
    priority: int = 100,
    at: datetime | None = None,
) -> CreditGrant:
    """Credit for a tenant, as the operator's command gives it."""
    command = GrantCredit(
        tenant=of,
        kind=CreditKind.PREPAID,
        microusd=microusd,
        priority=priority,
        expires_on=expires_on,
        reference=str(uuid.uuid4()),
    )
    act = Act(at or datetime.now(UTC), None, lambda: str(uuid.uuid4()))
    desk = CreditCommands(PostgresCredits(rig.postgres), NoRelay())
    answer = await desk.verbs["grant-credit"](command.model_dump_json().encode(), act)
    assert isinstance(answer, CreditGrant)
    return answer


async def left(rig: QuotaRig, on: date | None = None, of: str = "acme") -> int:
    """How much a prepaid tenant may still reserve on a day."""
    day = on or datetime.now(UTC).date()
    (state,) = await PostgresCredits(rig.postgres).prepaid(of, day)
    return state.left_microusd


@dataclass
class ByHand:
    """What is used by day, what months include, and grants: nothing of it from the database."""

    used: dict[date, int] = field(default_factory=dict)
    included: dict[date, int] = field(default_factory=dict)
    """By the first day of the month."""
    grants: list[Grant] = field(default_factory=list)

    def use(self, day: date, microusd: int) -> None:
        """Count it."""
        self.used[day] = self.used.get(day, 0) + microusd

    def unpaid(self, extra: int = 0, on: date = LONG_AGO) -> int:
        """What nobody pays when so much more is used on a day."""
        used = self.used | {on: self.used.get(on, 0) + extra}
        beyond: dict[date, int] = {}
        for month in {month_start(day) for day in used}:
            of_month = {day: cost for day, cost in used.items() if month_start(day) == month}
            beyond |= without_included(of_month, self.included.get(month, 0))
        paid = sum(use.microusd for use in apply_credits(beyond, self.grants))
        return sum(beyond.values()) - paid


def days(first: date, count: int) -> list[date]:
    """That day and those after it."""
    return [first + timedelta(days=n) for n in range(count)]


def most_paid(owed: dict[date, int], grants: Iterable[Grant]) -> int:
    """The most that grants can pay of it (Hall): all but the worst shortage from the end back."""
    whole, held = sum(owed.values()), list(grants)
    shortages = [0]
    for first in owed:
        needed = sum(amount for day, amount in owed.items() if day >= first)
        there = sum(g.left_microusd for g in held if g.expires_on is None or g.expires_on >= first)
        shortages.append(needed - there)
    return whole - max(shortages)
