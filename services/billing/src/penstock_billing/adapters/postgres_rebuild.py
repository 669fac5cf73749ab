"""Fresh tables in a schema of their own, and their comparison with the live ones.

The rows are written by the statement that meters, and summed up by plain queries: not by the
triggers that keep the live sums, so a mistake in either shows.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from penstock_billing.adapters.postgres_usage import PostgresUsage
from penstock_billing.ports.rebuild import MOST_DIFFERENCES, Difference, Span
from penstock_billing.ports.usage import Added, MeteredUsage
from penstock_shared.contracts.errors import ConflictError
from penstock_shared.runtime.postgres import Postgres, translated

_SCHEMA: Final = "billing_rebuild"
_LOCK: Final = 0x70656E73_00000006
_AT_LEAST_S: Final = 24 * 3600.0
"""Sums over a whole history take longer than a service's statements may."""
_PREPARE: Final = f"""
drop schema if exists {_SCHEMA} cascade;
create schema {_SCHEMA};
create unlogged table {_SCHEMA}.usage (like billing.usage including all)"""
# Live attempts that the log cannot tell of: those after its end, and those before its beginning.
_EXPECTED: Final = f"""
create view {_SCHEMA}.expected as
select * from {_SCHEMA}.usage
union all
select * from billing.usage u
where not event_seq between {{first}} and {{until}} and not exists (
    select from {_SCHEMA}.usage r
    where (r.tenant, r.request_id, r.attempt) = (u.tenant, u.request_id, u.attempt))"""
_SUMMED: Final = """
count(*) filter (where attempt = 1 and input_tokens + output_tokens + tool_calls > 0) as requests,
sum(input_tokens) as input_tokens, sum(cached_input_tokens) as cached_input_tokens,
sum(output_tokens) as output_tokens, sum(tool_calls) as tool_calls,
sum(cost_microusd) as cost_microusd"""
_SUMS: Final = (
    "requests, input_tokens, cached_input_tokens, output_tokens, tool_calls, cost_microusd"
)
_DAY: Final = "(accepted_at at time zone 'UTC')::date"


# ruff: noqa: S608  nothing but constants is put together
@dataclass(frozen=True, slots=True)
class _Figure:
    """One kind of figure: where it stands, and what it must be."""

    name: str
    place: str
    figures: str
    live: str
    rebuilt: str

    @property
    def differences(self) -> str:
        """The query for places where the two are not the same."""
        return f"""
with l as ({self.live}), r as ({self.rebuilt})
select (select to_jsonb(p) from (select {self.place}) as p) as place,
       case when l.there then (select to_jsonb(f) from (select {_of("l", self.figures)}) as f) end
           as live,
       case when r.there then (select to_jsonb(f) from (select {_of("r", self.figures)}) as f) end
           as rebuilt
from (select true as there, l.* from l) as l full join (select true as there, r.* from r) as r
    using ({self.place})
where row(l.there, {_of("l", self.figures)}) is distinct from
      row(r.there, {_of("r", self.figures)})
order by {self.place} limit {MOST_DIFFERENCES}"""


def _of(side: str, columns: str) -> str:
    return ", ".join(f"{side}.{column}" for column in columns.split(", "))


def _summed(name: str, table: str, place: str, computed: str) -> _Figure:
    """Sums of usage by some columns, and how those come from an attempt's."""
    return _Figure(
        name=name,
        place=place,
        figures=_SUMS,
        live=f"select * from billing.{table}",
        rebuilt=f"select {computed}, {_SUMMED} from {_SCHEMA}.expected group by {place}",
    )


_ATTEMPTS: Final = _Figure(
    name="attempts",
    place="tenant, request_id, attempt",
    figures=(
        "model, key_id, data_subject, kind, status, input_tokens, cached_input_tokens, "
        "output_tokens, tool_calls, cost_microusd, accepted_at, accepted_on, period, ended_at"
    ),
    live="select * from billing.usage",
    rebuilt=f"select * from {_SCHEMA}.expected",
)
_LEDGER: Final = _Figure(
    name="ledger",
    place="tenant, period",
    figures="microusd",
    live="""
select * from (
    select tenant, period, sum(case kind when 'usage' then microusd else -microusd end) as microusd
    from billing.transfers where kind in ('usage', 'usage-reversed') group by tenant, period
) as posted where microusd <> 0""",
    rebuilt=f"""
select tenant, period, sum(cost_microusd) as microusd from {_SCHEMA}.expected
group by tenant, period having sum(cost_microusd) > 0""",
)
_BALANCES: Final = _Figure(
    name="balances",
    place="tenant, period, account",
    figures="debit, credit",
    live="select * from billing.balances",
    rebuilt="""
select t.tenant, t.period, s.account, sum(s.debit) as debit, sum(s.credit) as credit
from billing.transfers t
cross join lateral (values (t.debit, t.microusd, 0), (t.credit, 0, t.microusd))
    as s (account, debit, credit)
group by 1, 2, 3""",
)
_QUOTAS: Final = _Figure(
    name="quotas",
    place="tenant, day, unit",
    figures="settled",
    live="select * from billing.quota_use where day >= $1 and settled <> 0",
    rebuilt=f"""
select u.tenant, u.accepted_on as day, v.unit, sum(v.amount) as settled
from {_SCHEMA}.expected u
cross join lateral (values
    ('requests', (u.attempt = 1)::int::bigint), ('tokens', u.input_tokens + u.output_tokens),
    ('microusd', u.cost_microusd)) as v (unit, amount)
where u.accepted_on >= $1
  and exists (select from billing.quota_use q where q.tenant = u.tenant)
group by 1, 2, 3 having sum(v.amount) <> 0""",
)
_FIGURES: Final = (
    _ATTEMPTS,
    _summed(
        "days",
        "usage_days",
        "tenant, period, day, kind, model",
        f"tenant, period, {_DAY} as day, kind, model",
    ),
    _summed(
        "minutes",
        "usage_minutes",
        "tenant, minute, kind, model, key_id",
        "tenant, date_trunc('minute', accepted_at, 'UTC') as minute, kind, model, key_id",
    ),
    _summed(
        "users",
        "usage_users",
        "tenant, day, kind, model, key_id, data_subject",
        f"tenant, {_DAY} as day, kind, model, key_id, data_subject",
    ),
    _LEDGER,
    _BALANCES,
)


class PostgresRebuild:
    """`FreshTables`: made by `opened`, gone when its block ends."""

    def __init__(self, postgres: Postgres, connection: Any) -> None:
        self._connection = connection
        self._usage = PostgresUsage(postgres, _SCHEMA)

    async def record(self, rows: Sequence[MeteredUsage]) -> list[Added]:
        """As `PostgresUsage.record`, into the fresh table."""
        return await self._usage.record(rows)

    async def differences(self, span: Span, since: date) -> list[Difference]:
        """Every figure that is not the same, up to MOST_DIFFERENCES of a kind, as of one moment."""
        found: list[Difference] = []
        with translated():
            view = _EXPECTED.format(first=span.first_seq, until=span.until_seq)
            await self._connection.execute(view)
            await self._connection.execute(f"analyze {_SCHEMA}.usage", timeout=_AT_LEAST_S)
            async with self._connection.transaction(isolation="repeatable_read", readonly=True):
                for figure in _FIGURES:
                    found += await self._compare(figure)
                found += await self._compare(_QUOTAS, since)
        return found

    async def _compare(self, figure: _Figure, *arguments: Any) -> list[Difference]:
        rows = await self._connection.fetch(figure.differences, *arguments, timeout=_AT_LEAST_S)
        return [
            Difference(
                figure=figure.name,
                place=json.loads(row["place"]),
                live=json.loads(row["live"]) if row["live"] else None,
                rebuilt=json.loads(row["rebuilt"]) if row["rebuilt"] else None,
            )
            for row in rows
        ]


@contextlib.asynccontextmanager
async def opened(postgres: Postgres) -> AsyncIterator[PostgresRebuild]:
    """Fresh tables. What a rebuild that died has left is removed first.

    Raises:
        ConflictError: another rebuild is going on.
        UnavailableError: Postgres does not answer.
    """
    with translated():
        async with postgres.acquire() as connection:
            if not await connection.fetchval("select pg_try_advisory_lock($1)", _LOCK):
                msg = "Another rebuild is going on: wait for its end."
                raise ConflictError(msg, code="rebuild_running")
            try:
                await connection.execute(_PREPARE)
                yield PostgresRebuild(postgres, connection)
            finally:
                await connection.execute(f"drop schema if exists {_SCHEMA} cascade")
                await connection.execute("select pg_advisory_unlock($1)", _LOCK)
