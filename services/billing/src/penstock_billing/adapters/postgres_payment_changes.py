"""Changes to payments, refunds and standings in PostgreSQL, and the rows that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Final

from penstock_billing.adapters.postgres_accounts import account_transaction
from penstock_billing.adapters.postgres_ledger import post
from penstock_billing.ports.ledger import Transfer
from penstock_billing.ports.payment_book import (
    Arrears,
    Collection,
    Payment,
    PaymentTransaction,
    Refund,
    Situation,
)
from penstock_billing.ports.payments import Payer, Provider
from penstock_shared.contracts.payments import PaymentProgress, Standing

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
PAYMENTS: Final = f"""
select {_PAYMENT_COLUMNS} from billing.payments p join billing.invoices i using (tenant, period)"""
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
REFUNDS: Final = f"""
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
# By tenant.
ARREARS: Final = """
select tenant, min(c.failing_since) as first_failure, bool_and(exists (
           select from billing.payments p
           where (p.tenant, p.period) = (c.tenant, c.period) and p.status = 'pending'
       )) as is_on_its_way
from billing.collections c
where c.failing_since is not null and c.paid_cents < c.cents group by tenant"""
_ARREARS_OF: Final = f"select * from ({ARREARS}) as a where tenant = $1"
SITUATIONS: Final = """
select tenant, standing, failing_since, extended_until, changed_at from billing.standings
where $1::text is null or tenant = $1 order by tenant"""
_SAVE_SITUATION: Final = """
insert into billing.standings (tenant, standing, failing_since, extended_until, changed_at)
values ($1, $2, $3, $4, $5)
on conflict (tenant) do update set (standing, failing_since, extended_until, changed_at)
    = (excluded.standing, excluded.failing_since, excluded.extended_until, excluded.changed_at)"""


def payment_transaction(connection: Any) -> PaymentTransaction:
    """Changes to payments within the transaction that is open on `connection`."""
    return _Transaction(connection)


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
        query = f"{PAYMENTS} where p.tenant = $1 and p.period = $2 order by p.attempt"
        return [payment_of_row(row) for row in await self._connection.fetch(query, tenant, period)]

    async def payment(self, payment_id: str) -> Payment | None:
        query = f"{PAYMENTS} where p.payment_id = $1"
        row = await self._connection.fetchrow(query, payment_id)
        return None if row is None else payment_of_row(row)

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
        query = f"{REFUNDS} where p.payment_id = $1 order by r.started_at, r.refund_id"
        return [refund_of_row(row) for row in await self._connection.fetch(query, payment_id)]

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

    async def arrears(self, tenant: str) -> Arrears:
        row = await self._connection.fetchrow(_ARREARS_OF, tenant)
        return Arrears() if row is None else arrears_of_row(row)

    async def situation(self, tenant: str) -> Situation:
        row = await self._connection.fetchrow(SITUATIONS, tenant)
        return Situation() if row is None else situation_of_row(row)

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


def payment_of_row(row: Any) -> Payment:
    """An attempt, from a row of `PAYMENTS`."""
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


def refund_of_row(row: Any) -> Refund:
    """A refund with its payment, from a row of `REFUNDS`."""
    return Refund(
        refund_id=str(row["refund_id"]),
        payment=payment_of_row(row),
        cents=row["refund_cents"],
        reason=row["reason"],
        progress=PaymentProgress(row["refund_status"]),
        started_at=row["refund_started_at"],
        reference=row["refund_reference"],
    )


def situation_of_row(row: Any) -> Situation:
    """A standing, from a row of `SITUATIONS`."""
    return Situation(
        standing=Standing(row["standing"]),
        failing_since=row["failing_since"],
        extended_until=row["extended_until"],
        changed_at=row["changed_at"],
    )


def arrears_of_row(row: Any) -> Arrears:
    """What could not be collected, from a row of `ARREARS`."""
    return Arrears(failing_since=row["first_failure"], is_on_its_way=bool(row["is_on_its_way"]))
