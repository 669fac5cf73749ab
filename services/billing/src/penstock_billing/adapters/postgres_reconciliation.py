"""The tables that the reconciliation compares, and how far it has come, in PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import date
from typing import Any, Final

from penstock_billing.adapters.postgres_months import PostgresMonths
from penstock_billing.ports.reconciliation import (
    CreditLeft,
    Issued,
    MonthSums,
    OpenMonths,
    Pushes,
    Snapshot,
    Sums,
    UsageFound,
)
from penstock_billing.ports.usage import MeteredUsage
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.runtime.postgres import Postgres, translated

# ruff: noqa: S608  nothing but constants is put together
_REBUILDING: Final = "select exists (select from billing.rebuild)"
_COMPARED: Final = "select events_seq from billing.reconciled"
_ROW: Final = f"""
{", ".join(f"u.{name}" for name in MeteredUsage._fields)}, u.period, greatest(
    date_trunc('month', u.accepted_at, 'UTC') at time zone 'UTC',
    (select max(p.period) + interval '1 month' from billing.periods p
     where p.tenant = u.tenant and p.cut_seq < u.event_seq))::date as due_period"""
_ROWS_OF: Final = f"""
select {_ROW} from unnest($1::text[], $2::uuid[], $3::integer[]) as f (tenant, request, attempt)
cross join lateral (
    select * from billing.usage u
    where u.tenant = f.tenant and u.request_id = f.request and u.attempt = f.attempt limit 1) u"""
_ROWS_BETWEEN: Final = f"""
select {_ROW} from billing.usage u where u.event_seq > $1 and u.event_seq <= $2"""
_AMOUNTS: Final = ", ".join(f"sum({name}) as {name}" for name in Sums._fields[1:])
_ADVANCE: Final = f"""
with moved as (
    update billing.reconciled set events_seq = $2 where events_seq = $1 returning 1
), seen as (
    insert into billing.reconciled_usage as r
    select tenant, period, count(*) as attempts, {_AMOUNTS}
    from billing.usage
    where event_seq > $1 and event_seq <= $2 and exists (select from moved)
    group by tenant, period
    on conflict (tenant, period) do update set
        {", ".join(f"{name} = r.{name} + excluded.{name}" for name in Sums._fields)}
    returning 1
)
select exists (select from moved)"""
_ROWS: Final = f"""
select tenant, period, sum(attempts) as attempts, {_AMOUNTS} from (
    select * from billing.reconciled_usage where $2 > 0 and period >= $1
    union all
    select tenant, period, count(*) as attempts, {_AMOUNTS} from billing.usage
    where event_seq > $2 and period >= $1
    group by tenant, period
) as both_parts group by tenant, period"""


def _summed(table: str, period: str, since: str) -> str:
    return f"""
select tenant, {period} as period, 0 as attempts, {_AMOUNTS} from billing.{table}
where {since} group by 1, 2"""


_MONTH_OF_DAY: Final = "date_trunc('month', day::timestamp)::date"
_DAYS: Final = _summed("usage_days", "period", "period >= $1")
_RECENT: Final = {
    "accepted_days": _summed(
        "usage_days", "date_trunc('month', day::timestamp)::date", "day >= $1"
    ),
    "minutes": _summed(
        "usage_minutes",
        "(date_trunc('month', minute, 'UTC') at time zone 'UTC')::date",
        "minute >= $1::date::timestamp at time zone 'UTC'",
    ),
    "users": _summed("usage_users", _MONTH_OF_DAY, "day >= $1"),
}
_BALANCES: Final = """
select tenant, period, account, debit - credit as microusd from billing.balances
where period >= $1"""
# All transactions before the oldest that goes on have ended: what they wrote is all there.
_SUMMED_XID: Final = "select transfers_xid from billing.reconciled"
_OLDEST_XID: Final = "select pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
_SUM_TRANSFERS: Final = """
with moved as (
    update billing.reconciled set transfers_xid = $2
    where transfers_xid = $1 and $1 < $2 returning 1
)
insert into billing.reconciled_transfers as r (tenant, period, debit, credit, microusd)
select tenant, period, debit, credit, sum(microusd) from billing.transfers
where xid >= $1 and xid < $2 and exists (select from moved)
group by 1, 2, 3, 4
on conflict (tenant, period, debit, credit) do update
    set microusd = r.microusd + excluded.microusd"""
_SUM_ANEW: Final = """
with moved as (
    update billing.reconciled set transfers_xid = 0 where transfers_xid = $1 returning 1
)
delete from billing.reconciled_transfers where exists (select from moved)"""
_TRANSFERS: Final = """
select tenant, period, debit, credit, sum(microusd) as microusd from (
    select tenant, period, debit, credit, microusd from billing.reconciled_transfers
    where $2 > 0 and period >= $1
    union all
    select tenant, period, debit, credit, microusd from billing.transfers
    where xid >= $2 and period >= $1
) as both_parts group by 1, 2, 3, 4"""
_RESERVED: Final = """
select tenant, date_trunc('month', accepted_on::timestamp)::date as period,
       sum(microusd) as microusd
from billing.reservations where accepted_on >= $1 group by 1, 2"""
_CLOSED: Final = """
select p.tenant, p.period, i.usage_microusd, i.due_microusd
from billing.periods p left join billing.invoices i using (tenant, period)
where p.period >= $1 and p.status = 'closed'"""
_PUSHES: Final = """
select tenant, period,
       coalesce(sum(cents) filter (where outcome in ('accepted', 'duplicate', 'summed')), 0)
           as acknowledged,
       coalesce(sum(cents) filter (where ended_at is null), 0) as unsettled
from billing.meter_pushes where period >= $1 group by 1, 2"""

_CREDITS: Final = """
select coalesce(g.tenant, b.tenant) as tenant, coalesce(g.microusd, 0) as granted_microusd,
       coalesce(b.microusd, 0) as ledger_microusd
from (select tenant, sum(microusd) - coalesce(sum((
          select sum(u.microusd) from billing.grant_uses u where u.grant_id = grants.grant_id
      )), 0) as microusd
      from billing.grants group by tenant) g
full join (select tenant, sum(credit - debit) as microusd from billing.balances
           where account = 'credits' group by tenant) b using (tenant)
order by 1"""


class PostgresReconciliation:
    """A `ReconciliationBook`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def rebuilding(self) -> bool:
        """Whether the log is being read again."""
        return bool(await self._postgres.fetchval(_REBUILDING))

    async def compared_seq(self) -> int:
        """How far the log has been compared."""
        return int(await self._postgres.fetchval(_COMPARED))

    async def rows_of(self, facts: Sequence[MeteredUsage]) -> list[UsageFound]:
        """The rows that have the facts' identities."""
        rows = await self._postgres.fetch(
            _ROWS_OF,
            [fact.tenant for fact in facts],
            [fact.request_id for fact in facts],
            [fact.attempt for fact in facts],
        )
        return [_found(row) for row in rows]

    async def rows_between(self, after: int, until: int) -> list[UsageFound]:
        """The rows whose facts have sequences in (after, until]."""
        return [_found(row) for row in await self._postgres.fetch(_ROWS_BETWEEN, after, until)]

    async def advance(self, after: int, until: int) -> bool:
        """The log is compared up to `until`, its rows are summed; False: another was faster."""
        return bool(await self._postgres.fetchval(_ADVANCE, after, until))

    async def sum_transfers(self) -> None:
        """Sum those transfers of which there will be no more, once."""
        summed = await self._postgres.fetchval(_SUMMED_XID)
        oldest = await self._postgres.fetchval(_OLDEST_XID)
        if summed > oldest:  # the database was moved to a server that counts anew
            await self._postgres.fetch(_SUM_ANEW, summed)
        else:
            await self._postgres.fetch(_SUM_TRANSFERS, summed, oldest)

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """Reads only."""
        with translated():
            async with (
                self._postgres.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                if await connection.fetchval(_REBUILDING):
                    msg = "Usage is being read from the event log again: compare when it is."
                    raise UnavailableError(msg, code="rebuilding")
                yield _Snapshot(connection)


class _Snapshot:
    """A `Snapshot` on one connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._months: dict[tuple[str, date], MonthSums] = {}

    async def months(self, since: date, recent: date | None) -> list[MonthSums]:
        # Numbers that the planner knows: only then does it see how few rows lie beyond them.
        compared = 0 if recent is None else await self._connection.fetchval(_COMPARED)
        summed = 0 if recent is None else await self._connection.fetchval(_SUMMED_XID)
        for row in await self._connection.fetch(_ROWS, since, compared):
            self._month(row).rows = _sums(row)
        for row in await self._connection.fetch(_DAYS, since):
            self._month(row).days = _sums(row)
        for name, query in _RECENT.items():
            for row in await self._connection.fetch(query, recent or since):
                setattr(self._month(row), name, _sums(row))
        for row in await self._connection.fetch(_TRANSFERS, since, summed):
            self._month(row).add(row["debit"], row["credit"], int(row["microusd"]))
        await self._read_balances(since)
        await self._read_invoices(since)
        return [self._months[place] for place in sorted(self._months)]

    async def _read_balances(self, since: date) -> None:
        for row in await self._connection.fetch(_BALANCES, since):
            self._month(row).balances[row["account"]] = int(row["microusd"])
        for row in await self._connection.fetch(_RESERVED, since):
            self._month(row).reserved_microusd = int(row["microusd"])

    async def _read_invoices(self, since: date) -> None:
        for row in await self._connection.fetch(_CLOSED, since):
            self._month(row).closed = True
            if row["due_microusd"] is not None:
                self._month(row).invoice = Issued(row["usage_microusd"], row["due_microusd"])
        for row in await self._connection.fetch(_PUSHES, since):
            pushes = Pushes(int(row["acknowledged"]), int(row["unsettled"]))
            self._month(row).pushes = pushes

    async def credits(self) -> list[CreditLeft]:
        return [
            CreditLeft(row["tenant"], int(row["granted_microusd"]), int(row["ledger_microusd"]))
            for row in await self._connection.fetch(_CREDITS)
        ]

    async def open_months(self, tenant: str, period: date) -> OpenMonths | None:
        reader = PostgresMonths(self._connection, tenant)
        if not await reader.known():
            return None
        months = [*await reader.open_months(period), period]
        return OpenMonths(
            records=tuple([await reader.records(month) for month in months]),
            grants=tuple(await reader.grants()),
        )

    def _month(self, row: Any) -> MonthSums:
        place = (row["tenant"], row["period"])
        return self._months.setdefault(place, MonthSums(*place))


def _sums(row: Any) -> Sums:
    return Sums(*(int(row[name]) for name in Sums._fields))


def _found(row: Any) -> UsageFound:
    values = [row[name] for name in MeteredUsage._fields]
    usage = MeteredUsage(*values)._replace(request_id=str(row["request_id"]))
    return UsageFound(usage, row["period"], row["due_period"])
