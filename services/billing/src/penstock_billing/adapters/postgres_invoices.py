"""Months and invoices in PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import date, datetime
from typing import Any, Final

from penstock_billing.adapters.postgres_credits import credit_transaction
from penstock_billing.adapters.postgres_ledger import balances
from penstock_billing.adapters.postgres_months import (
    INVOICE_COLUMNS,
    LINE_COLUMNS,
    PostgresMonths,
)
from penstock_billing.adapters.postgres_outbox import enqueue
from penstock_billing.adapters.postgres_roles import TenantPostgres
from penstock_billing.ports.credits import CreditTransaction, CreditUse
from penstock_billing.ports.invoices import (
    Cut,
    MonthClosing,
    MonthReader,
)
from penstock_billing.ports.ledger import Account
from penstock_billing.ports.outbox import OutboxEntry
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.invoices import Invoice, InvoiceLine, first_day
from penstock_shared.runtime.postgres import Postgres, translated

_AT_ONCE: Final = 1_000
"""Tenants that one transaction cuts: metering waits for it (60 ms)."""
# ruff: noqa: S608  nothing but constants is put together
# The earliest month that is neither cut nor closed: of each tenant that has no cut one. While
# something is reserved in it, it waits: what was let in on credit that ends with the month must be
# paid by it (ADR 26), and a reservation always ends.
_DUE: Final = f"""
select t.tenant, next.period
from billing.tenants t
cross join lateral (
    select date_trunc('month', t.created_at at time zone 'UTC')::date as begun,
           (select min(b.period) from billing.balances b
            where b.tenant = t.tenant and not exists (
                select from billing.periods p
                where p.tenant = t.tenant and p.period = b.period)) as used,
           (select max(p.period) from billing.periods p where p.tenant = t.tenant) as cut
) as first
cross join lateral (
    select case
        when first.used < coalesce(first.cut, first.begun) then first.used
        else coalesce((first.cut + interval '1 month')::date, first.begun) end as period
) as next
where next.period < $1 and ($2::text is null or t.tenant = $2) and not exists (
    select from billing.periods p where p.tenant = t.tenant and p.status = 'closing')
and not exists (
    select from billing.reservations r
    where r.tenant = t.tenant and r.accepted_on < (next.period + interval '1 month')::date)
order by t.tenant limit {_AT_ONCE}"""
_CUT: Final = f"""
insert into billing.periods (tenant, period, status, cut_seq, cut_at)
select due.tenant, due.period, 'closing', $3, $4 from ({_DUE}) as due
on conflict do nothing returning 1"""
_CUTS: Final = """
select tenant, period, cut_seq from billing.periods
where status = 'closing' and ($1::text is null or tenant = $1) order by period, tenant"""
_HELD: Final = "select count(distinct tenant) from billing.reservations where accepted_on < $1"
_LOCK_TENANT: Final = "select from billing.tenants where tenant = $1 for no key update"
_LOCK_PERIOD: Final = """
select from billing.periods where tenant = $1 and period = $2 and status = 'closing' for update"""
_LOCK_GRANTS: Final = """
select from billing.grants where tenant = $1 and used < microusd order by grant_id for update"""
_REBUILDING: Final = "select exists (select from billing.rebuild)"
_CLOSE: Final = """
update billing.periods set status = 'closed', closed_at = $3 where tenant = $1 and period = $2"""
_USE: Final = """
insert into billing.grant_uses (grant_id, tenant, period, kind, microusd)
select * from unnest($1::uuid[], $2::text[], $3::date[], $4::text[], $5::bigint[])"""
_ISSUE: Final = f"""
insert into billing.invoices ({INVOICE_COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)"""
_ISSUE_LINES: Final = f"""
insert into billing.invoice_lines (tenant, period, line, {LINE_COLUMNS})
select $1, $2, g.* from unnest(
    $3::integer[], $4::text[], $5::text[], $6::date[], $7::date[], $8::text[], $9::text[],
    $10::bigint[], $11::bigint[], $12::bigint[]) as g"""


class PostgresInvoices:
    """An `InvoiceBook`."""

    def __init__(self, postgres: Postgres, tenants: TenantPostgres) -> None:
        self._postgres = postgres
        self._tenants = tenants

    @contextlib.asynccontextmanager
    async def reading(self, tenant: str) -> AsyncIterator[MonthReader]:
        """For one tenant's questions: sees nothing of any other (I8)."""
        async with self._tenants.of(tenant) as connection:
            yield PostgresMonths(connection, tenant)

    @contextlib.asynccontextmanager
    async def closing(self, cut: Cut) -> AsyncIterator[MonthClosing | None]:
        """Commits at the end, or changes nothing; None where the month is closed already."""
        with translated():
            async with self._postgres.acquire() as connection, connection.transaction():
                month = _Closing(connection, cut)
                yield month if await month.lock() else None

    async def cut(
        self, before: date, at: datetime, last_seq: Callable[[], Awaitable[int]], tenant: str | None
    ) -> int:
        """Cut the earliest open month of some tenants, or of one, if it is before that day."""
        with translated():
            async with self._postgres.acquire() as connection, connection.transaction():
                if not await connection.fetch(_DUE, before, tenant):
                    return 0
                await connection.execute("select billing.hold_metering()")
                cut_seq = await last_seq()
                return len(await connection.fetch(_CUT, before, tenant, cut_seq, at))

    async def cuts(self, tenant: str | None) -> list[Cut]:
        """The months that wait to be closed."""
        return [Cut(**dict(row)) for row in await self._postgres.fetch(_CUTS, tenant)]

    async def held(self, before: date) -> int:
        """Tenants whose months before that day wait for what is reserved in them."""
        return int(await self._postgres.fetchval(_HELD, before))

    async def now(self) -> datetime:
        """By the database's clock."""
        now: datetime = await self._postgres.fetchval("select now()")
        return now


class _Closing(PostgresMonths):
    """A `MonthClosing` on one connection."""

    def __init__(self, connection: Any, cut: Cut) -> None:
        super().__init__(connection, cut.tenant)
        self._period = cut.period

    @property
    def credits(self) -> CreditTransaction:
        return credit_transaction(self._connection)

    async def lock(self) -> bool:
        """Whether the month is there to be closed; its terms, credits and usage stand still then.

        In the order of all locks: the tenant, `billing.usage`, what is the tenant's.
        """
        await self._connection.execute(_LOCK_TENANT, self._tenant)
        await self._connection.execute("lock table billing.usage in access share mode")
        if await self._connection.fetchval(_REBUILDING):
            msg = "Usage is being read from the event log again: no month is closed meanwhile."
            raise UnavailableError(msg, code="rebuilding")
        if not await self._connection.fetch(_LOCK_PERIOD, self._tenant, self._period):
            return False
        await self._connection.execute(_LOCK_GRANTS, self._tenant)
        return True

    async def issue(self, invoice: Invoice) -> None:
        await self._connection.execute(
            _ISSUE,
            invoice.tenant,
            first_day(invoice.month),
            invoice.number,
            invoice.usage_microusd,
            invoice.subtotal_microusd,
            invoice.credit_microusd,
            invoice.due_microusd,
            invoice.events_seq,
            invoice.issued_at,
        )
        columns = zip(*(_line_values(*line) for line in enumerate(invoice.lines, 1)), strict=True)
        await self._connection.execute(
            _ISSUE_LINES, invoice.tenant, first_day(invoice.month), *(list(one) for one in columns)
        )

    async def use_credits(self, paid: Sequence[CreditUse], expired: Sequence[CreditUse]) -> None:
        uses = [*((use, "paid") for use in paid), *((use, "expired") for use in expired)]
        await self._connection.execute(
            _USE,
            [use.grant_id for use, _ in uses],
            [self._tenant for _ in uses],
            [self._period for _ in uses],
            [kind for _, kind in uses],
            [use.microusd for use, _ in uses],
        )

    async def receivable(self) -> int:
        found = await balances(self._connection, self._tenant, self._period)
        return sum(one.debit - one.credit for one in found if one.account is Account.RECEIVABLE)

    async def close(self, at: datetime) -> None:
        await self._connection.execute(_CLOSE, self._tenant, self._period, at)

    async def enqueue(self, entries: Sequence[OutboxEntry]) -> None:
        await enqueue(self._connection, entries)


def _line_values(number: int, line: InvoiceLine) -> tuple[Any, ...]:
    return (
        number,
        line.kind.value,
        line.description,
        line.from_day,
        line.to_day,
        line.model,
        line.meter,
        line.quantity,
        line.unit_microusd,
        line.amount_microusd,
    )
