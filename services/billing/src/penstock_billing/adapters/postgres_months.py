"""One tenant's months in PostgreSQL: what they are rated from, and what they came to."""

from __future__ import annotations

from datetime import date
from typing import Any, Final

from penstock_billing.adapters.postgres_plans import read_timeline
from penstock_billing.ports.credits import Grant
from penstock_billing.ports.invoices import Adjustment, DayUsage, MonthRecords
from penstock_shared.contracts.invoices import Invoice, InvoiceLine

INVOICE_COLUMNS: Final = (
    "tenant, period, number, usage_microusd, subtotal_microusd, credit_microusd, due_microusd, "
    "events_seq, issued_at"
)
LINE_COLUMNS: Final = (
    "kind, description, from_day, to_day, model, meter, quantity, unit_microusd, amount_microusd"
)
# ruff: noqa: S608  nothing but constants is put together
_KNOWN: Final = "select exists (select from billing.tenants where tenant = $1)"
_USAGE: Final = """
select day, model, sum(requests)::bigint as requests, sum(input_tokens)::bigint as input_tokens,
       sum(cached_input_tokens)::bigint as cached_input_tokens,
       sum(output_tokens)::bigint as output_tokens, sum(tool_calls)::bigint as tool_calls,
       sum(cost_microusd)::bigint as cost_microusd
from billing.usage_days where tenant = $1 and period = $2
group by day, model order by day, model"""
_ADJUSTMENTS: Final = """
select reason, microusd from billing.adjustments where tenant = $1 and period = $2"""
_GRANTS: Final = """
select grant_id, microusd - used as left_microusd, priority, expires_on, granted_at
from billing.grants where tenant = $1 and used < microusd order by grant_id"""
# From the tenant's first month on, or from the first in which the ledger has something: a clock
# may have been wrong when the tenant was created.
_OPEN: Final = """
select m.period from billing.tenants t
cross join lateral (
    select generate_series(least(date_trunc('month', t.created_at at time zone 'UTC')::date, (
        select min(b.period) from billing.balances b where b.tenant = t.tenant))::timestamp,
        $2::date - 1, '1 month')::date as period) as m
where t.tenant = $1 and not exists (
    select from billing.periods p
    where p.tenant = t.tenant and p.period = m.period and p.status = 'closed')
order by 1"""
_INVOICES: Final = f"""
select {INVOICE_COLUMNS} from billing.invoices
where tenant = $1 and period < $2 order by period desc limit $3"""
_LINES: Final = f"""
select period, {LINE_COLUMNS} from billing.invoice_lines
where tenant = $1 and period = any ($2::date[]) order by period, line"""


class PostgresMonths:
    """A `MonthReader`, in the transaction that `connection` is in."""

    def __init__(self, connection: Any, tenant: str) -> None:
        self._connection = connection
        self._tenant = tenant

    async def known(self) -> bool:
        """Whether the tenant exists."""
        return bool(await self._connection.fetchval(_KNOWN, self._tenant))

    async def issued(self, before: date, limit: int) -> list[Invoice]:
        """Its invoices of months before that day, latest first."""
        rows = await self._connection.fetch(_INVOICES, self._tenant, before, limit)
        lines: dict[date, list[InvoiceLine]] = {row["period"]: [] for row in rows}
        for row in await self._connection.fetch(_LINES, self._tenant, list(lines)):
            lines[row["period"]].append(InvoiceLine(**dict(row)))
        return [
            Invoice(**dict(row), month=f"{row['period']:%Y-%m}", lines=tuple(lines[row["period"]]))
            for row in rows
        ]

    async def open_months(self, before: date) -> list[date]:
        """Those before that day which are not closed, earliest first."""
        rows = await self._connection.fetch(_OPEN, self._tenant, before)
        return [row["period"] for row in rows]

    async def records(self, period: date) -> MonthRecords:
        """All that the month is rated from."""
        usage = await self._connection.fetch(_USAGE, self._tenant, period)
        adjustments = await self._connection.fetch(_ADJUSTMENTS, self._tenant, period)
        return MonthRecords(
            tenant=self._tenant,
            period=period,
            timeline=tuple(await read_timeline(self._connection, self._tenant)),
            usage=tuple(DayUsage(**dict(row)) for row in usage),
            adjustments=tuple(Adjustment(row["reason"], row["microusd"]) for row in adjustments),
        )

    async def grants(self) -> list[Grant]:
        """Credits of which something is left."""
        rows = await self._connection.fetch(_GRANTS, self._tenant)
        return [Grant(**dict(row) | {"grant_id": str(row["grant_id"])}) for row in rows]
