"""Settled usage in PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

import asyncpg

from penstock_billing.ports.usage import Added, MeteredUsage
from penstock_shared.contracts.errors import SchemaError
from penstock_shared.contracts.requests import RequestRouted
from penstock_shared.contracts.reservations import reservations_json
from penstock_shared.contracts.usage import UsageRow
from penstock_shared.runtime.postgres import Postgres

# One statement, hence one transaction and one round trip (79,000 rows/s: FIELD-NOTES). What was
# there already is not returned: the caller sees what the batch really added. Triggers settle the
# quotas of the tenants that have any (I4), and keep sums and ledger, in the same statement.
#
# The month is that of acceptance; after that was cut, the next one: see `billing.periods`. A look
# at the tenant's own cuts is for facts of months that somebody's cut has reached already.
_RECORD: Final = """
with given as (
    select g.*, accepted_at at time zone 'UTC' as accepted_utc
    from unnest(
        $1::text[], $2::uuid[], $3::integer[], $4::bigint[], $5::text[], $6::text[], $7::text[],
        $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[],
        $14::bigint[], $15::timestamptz[], $16::timestamptz[]
    ) as g (tenant, request_id, attempt, event_seq, model, key_id, data_subject, kind, status,
            input_tokens, cached_input_tokens, output_tokens, tool_calls, cost_microusd,
            accepted_at, ended_at)
), placed as (
    select given.*, case
        when date_trunc('month', accepted_utc)
             > coalesce((select max(period) from billing.periods), '-infinity')
        then date_trunc('month', accepted_utc)
        else greatest(date_trunc('month', accepted_utc), (
            select max(p.period) + interval '1 month' from billing.periods p
            where p.tenant = given.tenant and p.cut_seq < given.event_seq))
        end::date as period
    from given
), added as (
    insert into {schema}.usage
        (tenant, request_id, attempt, event_seq, model, key_id, data_subject, kind, status,
         input_tokens, cached_input_tokens, output_tokens, tool_calls, cost_microusd,
         accepted_at, accepted_on, period, ended_at)
    select tenant, request_id, attempt, event_seq, model, key_id, data_subject, kind, status,
           input_tokens, cached_input_tokens, output_tokens, tool_calls, cost_microusd,
           accepted_at, accepted_utc::date, period, ended_at
    from placed
    on conflict (tenant, request_id, attempt) do nothing
    returning model, input_tokens, output_tokens, cost_microusd,
              period > date_trunc('month', accepted_on::timestamp) as late
)
select model, count(*)::bigint as rows, count(*) filter (where late) as late,
       sum(input_tokens)::bigint as input_tokens,
       sum(output_tokens)::bigint as output_tokens, sum(cost_microusd) as cost_microusd
from added group by model"""

_RESTORE: Final = "select billing.restore($1::jsonb)"
_REQUESTED: Final = "select exists (select from billing.rebuild where until_seq is null)"
_BEGUN: Final = "update billing.rebuild set until_seq = $1 where until_seq is null"
_UNTIL: Final = "select coalesce(max(until_seq), 0) from billing.rebuild"
_ENDED: Final = "delete from billing.rebuild where until_seq <= $1"
_TOTALS: Final = """
select tenant, model, sum(requests)::bigint as requests, sum(input_tokens) as input_tokens,
       sum(output_tokens) as output_tokens, sum(cost_microusd) as cost_microusd
from billing.usage_days where $1::text is null or tenant = $1
group by tenant, model order by tenant, model"""


class PostgresUsage:
    """A `UsageLedger`."""

    def __init__(self, postgres: Postgres, schema: str = "billing") -> None:
        """`schema` is where its table `usage` is: cuts are always billing's own."""
        self._postgres = postgres
        self._record = _RECORD.format(schema=schema)

    async def record(self, rows: Sequence[MeteredUsage]) -> list[Added]:
        """Add what is not there yet, all or nothing; after this returns it is committed.

        Raises:
            SchemaError: a value among them is none that the table can hold.
            UnavailableError: Postgres does not answer; it may be committed or not.
        """
        if not rows:
            return []
        with _storable():
            added = await self._postgres.fetch(self._record, *zip(*rows, strict=True))
        return [
            Added(
                model=row["model"],
                rows=row["rows"],
                late=row["late"],
                input_tokens=row["input_tokens"],
                output_tokens=row["output_tokens"],
                cost_microusd=int(row["cost_microusd"]),
            )
            for row in added
        ]

    async def restore(self, requests: Sequence[RequestRouted]) -> None:
        """Reserve again what the database has lost of these.

        Raises:
            SchemaError: a value among them is none that the table can hold.
            UnavailableError: Postgres does not answer; it may be committed or not.
        """
        with _storable():
            await self._postgres.fetch(_RESTORE, reservations_json(requests))

    async def totals(self, tenant: str | None = None) -> list[UsageRow]:
        """Sums by tenant and model; a request counts where it was first tried, if it used any."""
        return [
            UsageRow(
                tenant=row["tenant"],
                model=row["model"],
                requests=row["requests"],
                input_tokens=int(row["input_tokens"]),
                output_tokens=int(row["output_tokens"]),
                cost_microusd=int(row["cost_microusd"]),
            )
            for row in await self._postgres.fetch(_TOTALS, tenant)
        ]

    async def rebuild_requested(self) -> bool:
        """Whether EVENTS is to be read again from its beginning (I9)."""
        return bool(await self._postgres.fetchval(_REQUESTED))

    async def empty(self) -> None:
        """Forget all usage: sums go, the ledger posts it back, and a rebuild is asked for."""
        await self._postgres.fetch("truncate billing.usage")

    async def rebuild_begun(self, until_seq: int) -> None:
        """The consumer stands at the beginning: what was asked for is done at `until_seq`."""
        await self._postgres.fetch(_BEGUN, until_seq)

    async def rebuild_until(self) -> int:
        """Up to where EVENTS is being read again; 0: it is not."""
        return int(await self._postgres.fetchval(_UNTIL))

    async def rebuild_ended(self, events_seq: int) -> bool:
        """EVENTS is settled up to there; whether nothing has to be read again any more."""
        await self._postgres.fetch(_ENDED, events_seq)
        return not await self._postgres.fetchval("select exists (select from billing.rebuild)")

    async def reservations(self) -> int:
        """How many attempts have one."""
        return int(await self._postgres.fetchval("select count(*) from billing.reservations"))


@contextlib.contextmanager
def _storable() -> Iterator[None]:
    try:
        yield
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
        msg = "The fact holds a value that cannot be stored."
        raise SchemaError(msg, code="not_storable") from error
