"""Payments, refunds and standings in PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import date, datetime
from typing import Final

from penstock_billing.adapters.postgres_payment_changes import (
    ARREARS,
    PAYMENTS,
    REFUNDS,
    SITUATIONS,
    arrears_of_row,
    payment_of_row,
    payment_transaction,
    refund_of_row,
    situation_of_row,
)
from penstock_billing.ports.payment_book import (
    Debtor,
    Payment,
    PaymentTransaction,
    Refund,
    Situation,
)
from penstock_billing.ports.payments import Provider
from penstock_shared.contracts.payments import (
    CollectionRecord,
    PaymentList,
    PaymentRecord,
    RefundRecord,
)
from penstock_shared.runtime.postgres import Postgres, translated

# ruff: noqa: S608  nothing but constants is put together
_PAYMENT_OF: Final = f"""
{PAYMENTS} where p.provider = $1 and (p.reference = $2 or p.payment_id in (
    select payment_id from billing.refunds where reference = $2))
order by p.attempt desc limit 1"""
_DUE: Final = """
select c.tenant, c.period
from billing.collections c join billing.payers using (tenant)
where c.next_try_at <= $1 and c.paid_cents < c.cents
  and not exists (select from billing.payments p
                  where (p.tenant, p.period) = (c.tenant, c.period)
                    and p.status in ('started', 'pending'))
order by c.next_try_at, c.tenant limit $2"""
# `skip locked`: replicas that look at the same moment take different rows.
_CLAIM: Final = """
with claimed as (
    select {key} as id from billing.{table} where next_look_at <= $1
    order by next_look_at limit $3 for update skip locked
), moved as (
    update billing.{table} set next_look_at = $2 where {key} in (select id from claimed)
)
{rows} where {alias}.{key} in (select id from claimed)"""
_CLAIM_PAYMENTS: Final = _CLAIM.format(key="payment_id", table="payments", alias="p", rows=PAYMENTS)
_CLAIM_REFUNDS: Final = _CLAIM.format(key="refund_id", table="refunds", alias="r", rows=REFUNDS)
_DEBTORS: Final = f"""
select tenant, t.status, s.standing, s.failing_since, s.extended_until, s.changed_at,
       f.first_failure, f.is_on_its_way
from billing.tenants t
left join billing.standings s using (tenant)
left join ({ARREARS}) as f using (tenant)
where f.first_failure is not null or s.standing in ('past_due', 'grace', 'suspended')
order by tenant"""
_LIST_COLLECTIONS: Final = """
select tenant, to_char(period, 'YYYY-MM') as month, due_microusd, carried_in_microusd, cents,
       carried_microusd, paid_cents, failing_since, next_try_at
from billing.collections where tenant = $1 and ($2::date is null or period = $2)
order by period desc limit $3"""
_LIST_PAYMENTS: Final = """
select payment_id, tenant, to_char(period, 'YYYY-MM') as month, attempt, provider, cents,
       status as progress, reference, failure, started_at, ended_at
from billing.payments where tenant = $1 and ($2::date is null or period = $2)
order by period desc, attempt desc limit $3"""
_LIST_REFUNDS: Final = """
select refund_id, payment_id, cents, reason, status as progress, started_at, ended_at
from billing.refunds where tenant = $1 and payment_id = any ($2::uuid[])
order by started_at, refund_id"""


class PostgresPayments:
    """A `PaymentBook`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[PaymentTransaction]:
        """Commits at the end, or changes nothing."""
        with translated():
            async with self._postgres.acquire() as connection, connection.transaction():
                yield payment_transaction(connection)

    async def due(self, at: datetime, limit: int) -> list[tuple[str, date]]:
        """Tenant and month of invoices that can and should be collected now."""
        rows = await self._postgres.fetch(_DUE, at, limit)
        return [(row["tenant"], row["period"]) for row in rows]

    async def claim_payments(self, at: datetime, until: datetime, limit: int) -> list[Payment]:
        """Attempts that should be looked at; nobody else gets them before `until`."""
        return [
            payment_of_row(row)
            for row in await self._postgres.fetch(_CLAIM_PAYMENTS, at, until, limit)
        ]

    async def claim_refunds(self, at: datetime, until: datetime, limit: int) -> list[Refund]:
        """As `claim_payments`."""
        return [
            refund_of_row(row)
            for row in await self._postgres.fetch(_CLAIM_REFUNDS, at, until, limit)
        ]

    async def payment_of(self, provider: Provider, reference: str) -> Payment | None:
        """The latest attempt that has this id at the provider, or a refund that has it."""
        rows = await self._postgres.fetch(_PAYMENT_OF, provider.value, reference)
        return payment_of_row(rows[0]) if rows else None

    async def debtors(self) -> list[Debtor]:
        """Tenants that could not be collected from, or are not in good standing."""
        return [
            Debtor(
                tenant=row["tenant"],
                situation=Situation() if row["standing"] is None else situation_of_row(row),
                arrears=arrears_of_row(row),
                is_active=row["status"] == "active",
            )
            for row in await self._postgres.fetch(_DEBTORS)
        ]

    async def situations(self, tenant: str | None) -> list[tuple[str, Situation]]:
        """As written, of one tenant or of all that have one."""
        rows = await self._postgres.fetch(SITUATIONS, tenant)
        return [(row["tenant"], situation_of_row(row)) for row in rows]

    async def listed(self, tenant: str, period: date | None, limit: int) -> PaymentList:
        """Collections, attempts and refunds as they are shown, the latest first."""
        collections = await self._postgres.fetch(_LIST_COLLECTIONS, tenant, period, limit)
        payments = await self._postgres.fetch(_LIST_PAYMENTS, tenant, period, limit)
        ids = [row["payment_id"] for row in payments]
        refunds = [
            RefundRecord(**dict(row))
            for row in await self._postgres.fetch(_LIST_REFUNDS, tenant, ids)
        ]
        return PaymentList(
            collections=tuple(CollectionRecord(**dict(row)) for row in collections),
            payments=tuple(
                PaymentRecord(
                    **dict(row),
                    refunds=tuple(one for one in refunds if one.payment_id == row["payment_id"]),
                )
                for row in payments
            ),
        )
