"""Payments, refunds and standings in PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import date, datetime
from typing import Any, Final

from penstock_billing.adapters.postgres_accounts import account_transaction
from penstock_billing.adapters.postgres_ledger import post
from penstock_billing.ports.ledger import Transfer
from penstock_billing.ports.payment_book import (
    Collection,
    Debtor,
    Payment,
    PaymentTransaction,
    Refund,
    Situation,
)
from penstock_billing.ports.payments import Payer, Provider
from penstock_shared.contracts.payments import (
    CollectionRecord,
    PaymentList,
    PaymentProgress,
    PaymentRecord,
    RefundRecord,
    Standing,
)
from penstock_shared.runtime.postgres import Postgres, translated

# ruff: noqa: S608  nothing but constants is put together
_PAYER: Final = "select tenant, provider, customer, method from billing.payers where tenant = $1"
_SAVE_PAYER: Final = """
insert into billing.payers (tenant, provider, customer, method, updated_at)
values ($1, $2, $3, $4, $5)
on conflict (tenant) do update set (provider, customer, method, updated_at)
    = (excluded.provider, excluded.customer, excluded.method, excluded.updated_at)"""
_TRY_NOW: Final = """
update billing.collections set next_try_at = $2 where tenant = $1 and paid_cents < cents"""
_COLLECTION: Final = """
select tenant, period, number, cents, paid_cents, failing_since, next_try_at
from billing.collections join billing.invoices using (tenant, period)
where tenant = $1 and period = $2"""
_SAVE_COLLECTION: Final = """
update billing.collections set paid_cents = $3, failing_since = $4, next_try_at = $5
where tenant = $1 and period = $2"""
_PAYMENT_COLUMNS: Final = """
p.payment_id, p.tenant, p.provider, p.customer, p.method, p.period, i.number, p.attempt,
p.cents, p.status, p.reference, p.failure, p.started_at"""
_PAYMENTS: Final = f"""
select {_PAYMENT_COLUMNS} from billing.payments p join billing.invoices i using (tenant, period)"""
_PAYMENT_OF: Final = f"""
{_PAYMENTS} where p.provider = $1 and (p.reference = $2 or p.payment_id in (
    select payment_id from billing.refunds where reference = $2))
order by p.attempt desc limit 1"""
_SAVE_PAYMENT: Final = """
insert into billing.payments
    (payment_id, tenant, period, attempt, provider, customer, method, cents, status, reference,
     failure, started_at, ended_at, next_look_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
on conflict (payment_id) do update set (cents, status, reference, failure, ended_at, next_look_at)
    = (excluded.cents, excluded.status, excluded.reference, excluded.failure, excluded.ended_at,
       excluded.next_look_at)"""
_REFUND_COLUMNS: Final = """
r.refund_id, r.cents as refund_cents, r.reason, r.status as refund_status,
r.reference as refund_reference, r.started_at as refund_started_at"""
_REFUNDS: Final = f"""
select {_PAYMENT_COLUMNS}, {_REFUND_COLUMNS}
from billing.refunds r join billing.payments p using (payment_id)
join billing.invoices i on i.tenant = p.tenant and i.period = p.period"""
_SAVE_REFUND: Final = """
insert into billing.refunds
    (refund_id, tenant, payment_id, cents, reason, status, reference, started_at, ended_at,
     next_look_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
on conflict (refund_id) do update set (status, reference, ended_at, next_look_at)
    = (excluded.status, excluded.reference, excluded.ended_at, excluded.next_look_at)"""
_FAILING: Final = """
select min(failing_since) from billing.collections where tenant = $1 and paid_cents < cents"""
_SITUATIONS: Final = """
select tenant, standing, failing_since, extended_until, changed_at from billing.standings
where $1::text is null or tenant = $1 order by tenant"""
_SAVE_SITUATION: Final = """
insert into billing.standings (tenant, standing, failing_since, extended_until, changed_at)
values ($1, $2, $3, $4, $5)
on conflict (tenant) do update set (standing, failing_since, extended_until, changed_at)
    = (excluded.standing, excluded.failing_since, excluded.extended_until, excluded.changed_at)"""
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
_CLAIM_PAYMENTS: Final = _CLAIM.format(
    key="payment_id", table="payments", alias="p", rows=_PAYMENTS
)
_CLAIM_REFUNDS: Final = _CLAIM.format(key="refund_id", table="refunds", alias="r", rows=_REFUNDS)
_DEBTORS: Final = """
select tenant, t.status, s.standing, s.failing_since, s.extended_until, s.changed_at,
       f.first_failure
from billing.tenants t
left join billing.standings s using (tenant)
left join (
    select tenant, min(failing_since) as first_failure from billing.collections
    where failing_since is not null and paid_cents < cents group by tenant) as f using (tenant)
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
                yield _Transaction(connection)

    async def due(self, at: datetime, limit: int) -> list[tuple[str, date]]:
        """Tenant and month of invoices that can and should be collected now."""
        rows = await self._postgres.fetch(_DUE, at, limit)
        return [(row["tenant"], row["period"]) for row in rows]

    async def claim_payments(self, at: datetime, until: datetime, limit: int) -> list[Payment]:
        """Attempts that should be looked at; nobody else gets them before `until`."""
        return [
            _payment(row) for row in await self._postgres.fetch(_CLAIM_PAYMENTS, at, until, limit)
        ]

    async def claim_refunds(self, at: datetime, until: datetime, limit: int) -> list[Refund]:
        """As `claim_payments`."""
        return [
            _refund(row) for row in await self._postgres.fetch(_CLAIM_REFUNDS, at, until, limit)
        ]

    async def payment_of(self, provider: Provider, reference: str) -> Payment | None:
        """The latest attempt that has this id at the provider, or a refund that has it."""
        rows = await self._postgres.fetch(_PAYMENT_OF, provider.value, reference)
        return _payment(rows[0]) if rows else None

    async def debtors(self) -> list[Debtor]:
        """Tenants that could not be collected from, or are not in good standing."""
        return [
            Debtor(
                tenant=row["tenant"],
                situation=Situation() if row["standing"] is None else _situation(row),
                failing_since=row["first_failure"],
                is_active=row["status"] == "active",
            )
            for row in await self._postgres.fetch(_DEBTORS)
        ]

    async def situations(self, tenant: str | None) -> list[tuple[str, Situation]]:
        """As written, of one tenant or of all that have one."""
        rows = await self._postgres.fetch(_SITUATIONS, tenant)
        return [(row["tenant"], _situation(row)) for row in rows]

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


class _Transaction:
    """A `PaymentTransaction` on one connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        accounts = account_transaction(connection)
        self.lock_tenant = accounts.lock_tenant
        self.change_tenant = accounts.change_tenant
        self.enqueue = accounts.enqueue

    async def save_payer(self, payer: Payer, at: datetime) -> None:
        await self._connection.execute(
            _SAVE_PAYER, payer.tenant, payer.provider.value, payer.customer, payer.method, at
        )
        await self._connection.execute(_TRY_NOW, payer.tenant, at)

    async def payer(self, tenant: str) -> Payer | None:
        row = await self._connection.fetchrow(_PAYER, tenant)
        return None if row is None else _payer(row)

    async def collection(self, tenant: str, period: date) -> Collection | None:
        row = await self._connection.fetchrow(_COLLECTION, tenant, period)
        return None if row is None else Collection(**dict(row))

    async def save_collection(self, collection: Collection) -> None:
        await self._connection.execute(
            _SAVE_COLLECTION,
            collection.tenant,
            collection.period,
            collection.paid_cents,
            collection.failing_since,
            collection.next_try_at,
        )

    async def payments(self, tenant: str, period: date) -> list[Payment]:
        query = f"{_PAYMENTS} where p.tenant = $1 and p.period = $2 order by p.attempt"
        return [_payment(row) for row in await self._connection.fetch(query, tenant, period)]

    async def payment(self, payment_id: str) -> Payment | None:
        query = f"{_PAYMENTS} where p.payment_id = $1"
        row = await self._connection.fetchrow(query, payment_id)
        return None if row is None else _payment(row)

    async def save_payment(
        self, payment: Payment, ended_at: datetime | None, next_look_at: datetime | None
    ) -> None:
        await self._connection.execute(
            _SAVE_PAYMENT,
            payment.payment_id,
            payment.payer.tenant,
            payment.period,
            payment.attempt,
            payment.payer.provider.value,
            payment.payer.customer,
            payment.payer.method,
            payment.cents,
            payment.progress.value,
            payment.reference,
            payment.failure,
            payment.started_at,
            ended_at,
            next_look_at,
        )

    async def refunds(self, payment_id: str) -> list[Refund]:
        query = f"{_REFUNDS} where p.payment_id = $1 order by r.started_at, r.refund_id"
        return [_refund(row) for row in await self._connection.fetch(query, payment_id)]

    async def save_refund(
        self, refund: Refund, ended_at: datetime | None, next_look_at: datetime | None
    ) -> None:
        await self._connection.execute(
            _SAVE_REFUND,
            refund.refund_id,
            refund.payment.payer.tenant,
            refund.payment.payment_id,
            refund.cents,
            refund.reason,
            refund.progress.value,
            refund.reference,
            refund.started_at,
            ended_at,
            next_look_at,
        )

    async def failing_since(self, tenant: str) -> datetime | None:
        since: datetime | None = await self._connection.fetchval(_FAILING, tenant)
        return since

    async def situation(self, tenant: str) -> Situation:
        row = await self._connection.fetchrow(_SITUATIONS, tenant)
        return Situation() if row is None else _situation(row)

    async def save_situation(self, tenant: str, situation: Situation) -> None:
        await self._connection.execute(
            _SAVE_SITUATION,
            tenant,
            situation.standing.value,
            situation.failing_since,
            situation.extended_until,
            situation.changed_at,
        )

    async def post(self, transfers: Sequence[Transfer]) -> None:
        await post(self._connection, transfers)


def _payer(row: Any) -> Payer:
    return Payer(row["tenant"], Provider(row["provider"]), row["customer"], row["method"])


def _payment(row: Any) -> Payment:
    return Payment(
        payment_id=str(row["payment_id"]),
        payer=_payer(row),
        period=row["period"],
        number=row["number"],
        attempt=row["attempt"],
        cents=row["cents"],
        progress=PaymentProgress(row["status"]),
        started_at=row["started_at"],
        reference=row["reference"],
        failure=row["failure"],
    )


def _refund(row: Any) -> Refund:
    return Refund(
        refund_id=str(row["refund_id"]),
        payment=_payment(row),
        cents=row["refund_cents"],
        reason=row["reason"],
        progress=PaymentProgress(row["refund_status"]),
        started_at=row["refund_started_at"],
        reference=row["refund_reference"],
    )


def _situation(row: Any) -> Situation:
    return Situation(
        standing=Standing(row["standing"]),
        failing_since=row["failing_since"],
        extended_until=row["extended_until"],
        changed_at=row["changed_at"],
    )
